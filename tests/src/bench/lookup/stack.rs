//! How much stack a program takes, by the verifier's word.
//!
//! The verifier says so in its log, which the library keeps only of a program that is refused. So the program is refused
//! after the verifier has done with it: because this process may not open another descriptor.

use anyhow::{Context as _, Result, bail};
use aya::programs::ProgramError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::programs::Program;

/// What the numbers follow, those of functions with `+` between them.
const SIGN: &str = "stack depth ";

/// Bytes of stack of the program and of all its functions, as if each called the next.
///
/// # Errors
/// The program is refused for another reason, or the verifier does not say.
pub(super) fn depth(program: Program) -> Result<u32> {
    let mut ebpf = program.open()?;
    let loaded = without_descriptors(|| program.load(&mut ebpf))??;
    let log = match loaded {
        Err(ProgramError::LoadError { verifier_log, .. }) => verifier_log.to_string(),
        Err(error) => return Err(error).with_context(|| format!("{} is refused", program.name)),
        Ok(()) => bail!("{} found a descriptor where there is none", program.name),
    };
    parse(&log).with_context(|| format!("the verifier does not show the stack of {}:\n{log}", program.name))
}

/// Does `work` while no descriptor can be opened in this process.
fn without_descriptors<T>(work: impl FnOnce() -> T) -> Result<T> {
    let (limit, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, 0, most)?;
    let done = work();
    setrlimit(Resource::RLIMIT_NOFILE, limit, most)?;
    Ok(done)
}

fn parse(log: &str) -> Option<u32> {
    let (_, told) = log.split_once(SIGN)?;
    let numbers = told.split(|c: char| c != '+' && !c.is_ascii_digit()).next()?;
    numbers.split('+').map(|number| number.parse::<u32>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn depths_of_functions_are_added() {
        assert_eq!(parse("verification time 7 usec\nstack depth 104\nprocessed 9 insns"), Some(104));
        assert_eq!(parse("stack depth 104+0+16\n"), Some(120));
        assert_eq!(parse("processed 9 insns"), None);
        assert_eq!(parse("stack depth \n"), None);
    }
}
