cargo xtask setup 2>&1 | tee /tmp/again.log
if grep --extended-regexp 'missing|Updating|Installing|Adding|Building' /tmp/again.log; then
    echo 'a second setup did something'
    exit 1
fi
