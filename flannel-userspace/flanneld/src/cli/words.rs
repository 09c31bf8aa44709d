//! Words as Go's `flag` package reads them, and the variables that stand in for flags.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use clap::error::ContextValue;
use clap::{Arg, ArgAction, Command};

use super::odd::{odd_dash, oddity};
use super::refusal::Refusal;
use super::removed::removed;
use super::values::is_switch;

/// The variable for a flag. There is none for `--version`, as in stock flannel: in a container such a variable is
/// likely about the image; nor for what else is done instead of running.
pub(super) fn env_name(flag: &str) -> Option<String> {
    (!matches!(flag, "version" | "man" | "completions" | "check"))
        .then(|| format!("FLANNELD_{}", flag.to_ascii_uppercase().replace('-', "_")))
}

/// One flag that is given.
struct Setting {
    /// Its name, without dashes.
    flag: String,
    /// Its value; a switch needs none.
    value: Option<OsString>,
    /// The variable it comes from; none for the command line.
    variable: Option<String>,
}

/// The flags that are given, on the command line or by variables.
#[derive(Default)]
pub(super) struct Settings(Vec<Setting>);

/// A word, as Go classifies it.
enum Word<'a> {
    Flag { name: &'a OsStr, value: Option<&'a OsStr> },
    Malformed,
    End,
    Other,
}

impl<'a> Word<'a> {
    fn new(word: &'a OsStr) -> Self {
        let bytes = word.as_bytes();
        let body = match bytes {
            b"--" => return Self::End,
            [b'-', b'-', body @ ..] | [b'-', body @ ..] if !body.is_empty() => body,
            _ => return Self::Other,
        };
        if matches!(body[0], b'-' | b'=') {
            return Self::Malformed;
        }
        let (name, value) = match body.iter().position(|byte| *byte == b'=') {
            Some(sign) => (&body[..sign], Some(OsStr::from_bytes(&body[sign + 1..]))),
            None => (body, None),
        };
        Self::Flag { name: OsStr::from_bytes(name), value }
    }
}

impl Settings {
    /// Reads the words behind the program's name, up to the first flag that `command` does not know.
    ///
    /// # Errors
    /// There is a word that belongs to no flag, or a flag of an earlier flannel.
    pub(super) fn read(
        command: &Command,
        mut words: impl Iterator<Item = OsString>,
    ) -> Result<Self, Refusal> {
        let mut settings = Self::default();
        let mut last_switch = None;
        while let Some(word) = words.next() {
            let (flag, value) = match Word::new(&word) {
                Word::Flag { name, value } => {
                    (name.to_string_lossy().into_owned(), value.map(OsStr::to_owned))
                }
                Word::Malformed => {
                    return Err(Refusal::usage(format!("bad flag syntax: {}", word.display())));
                }
                Word::End => match words.next() {
                    Some(word) => return Err(stray(&word, None)),
                    None => break,
                },
                Word::Other => return Err(stray(&word, last_switch.as_deref())),
            };
            if let Some(refusal) = removed(&flag) {
                return Err(refusal);
            }
            let Some(arg) = find(command, &flag) else {
                // Whether it takes a value is not known, so the rest is not read; clap refuses it, or helps.
                settings.0.push(Setting { flag, value: None, variable: None });
                break;
            };
            last_switch = (is_switch(arg) && value.is_none()).then(|| flag.clone());
            let value = if is_switch(arg) { value } else { value.or_else(|| words.next()) };
            settings.set(arg, Setting { flag, value, variable: None });
        }
        Ok(settings)
    }

    /// Adds flags from variables, if they are not given. An empty variable is ignored.
    pub(super) fn fill_in(&mut self, command: &Command, environment: impl Fn(&str) -> Option<OsString>) {
        for flag in command.get_arguments().filter_map(Arg::get_long) {
            let Some(variable) = env_name(flag) else { continue };
            let value = environment(&variable).filter(|value| !value.is_empty());
            if value.is_some() && self.get(flag).is_none() {
                self.0.push(Setting { flag: flag.to_owned(), value, variable: Some(variable) });
            }
        }
    }

    /// Refuses names and values with something in them that nobody sees, which no other message would show. A password may
    /// hold anything.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        for Setting { flag, value, .. } in &self.0 {
            if let Some(oddity) = oddity(flag) {
                return Err(Refusal::usage(format!("the flag {flag:?} {oddity}")));
            }
            let value = value.as_deref().and_then(OsStr::to_str).filter(|_| flag != "etcd-password");
            if let Some((value, oddity)) = value.and_then(|value| Some((value, oddity(value)?))) {
                return Err(Refusal::usage(format!("{} {oddity}: it is {value:?}", self.written(flag))));
            }
        }
        Ok(())
    }

    /// Of a flag that cannot be repeated the last one wins.
    fn set(&mut self, arg: &Arg, setting: Setting) {
        if !matches!(arg.get_action(), ArgAction::Append) {
            self.0.retain(|earlier| earlier.flag != setting.flag);
        }
        self.0.push(setting);
    }

    fn get(&self, flag: &str) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.flag == flag)
    }

    /// The words for clap, a program name first.
    pub(super) fn words(&self, command: &Command) -> Vec<OsString> {
        let given = self.0.iter().filter(|setting| !setting.says_nothing(command));
        std::iter::once(command.get_name().into()).chain(given.map(Setting::word)).collect()
    }

    /// The flag as the user wrote it: with dashes, or as a variable.
    pub(super) fn written(&self, flag: &str) -> String {
        let variable = self.get(flag).and_then(|setting| setting.variable.clone());
        variable.unwrap_or_else(|| format!("--{flag}"))
    }

    /// A line for each flag in `error` that comes from a variable.
    pub(super) fn notes(&self, error: &clap::Error) -> impl Iterator<Item = String> {
        let named: Vec<&str> = error
            .context()
            .filter_map(|(_, value)| match value {
                ContextValue::String(text) => Some(std::slice::from_ref(text)),
                ContextValue::Strings(texts) => Some(texts.as_slice()),
                _ => None,
            })
            .flatten()
            .filter_map(|text| text.strip_prefix("--")?.split([' ', '=', '[']).next())
            .collect();
        self.0.iter().filter(move |setting| named.contains(&&*setting.flag)).filter_map(|setting| {
            let variable = setting.variable.as_deref()?;
            Some(format!("note: --{} is set by the variable {variable}\n", setting.flag))
        })
    }
}

impl Setting {
    /// An empty value of a flag without a default is no value, as in stock flannel.
    fn says_nothing(&self, command: &Command) -> bool {
        self.value.as_deref().is_some_and(OsStr::is_empty)
            && find(command, &self.flag).is_some_and(|arg| arg.get_default_values().is_empty())
    }

    fn word(&self) -> OsString {
        let mut word = OsString::from(if self.flag == "h" { "-" } else { "--" });
        word.push(&self.flag);
        if let Some(value) = &self.value {
            word.push("=");
            word.push(value);
        }
        word
    }
}

fn find<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(flag))
}

fn stray(word: &OsStr, last_switch: Option<&str>) -> Refusal {
    if let Some(dash) = word.to_str().and_then(odd_dash) {
        return Refusal::usage(format!("unexpected word '{}': {dash}", word.display()));
    }
    let word = word.display();
    match last_switch {
        Some(flag) => Refusal::usage(format!(
            "unexpected word '{word}': --{flag} takes its value behind an equals sign: --{flag}=false"
        )),
        None => Refusal::usage(format!("unexpected word '{word}': there are only flags")),
    }
}
