//! The flags as clap sees them.

use clap::{Arg, Command, CommandFactory as _};

use super::flags::Flags;
use super::stock;
use super::values::is_switch;
use super::words::env_name;

/// The command as clap sees it. clap would read variables from the process alone, and take an empty one for a value; so
/// they are read elsewhere, and only their names are in the help.
pub(super) fn command() -> Command {
    Flags::command().mut_args(complete)
}

fn complete(arg: Arg) -> Arg {
    let Some(flag) = arg.get_long().map(str::to_owned) else { return arg };
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if !stock::is_served(&flag) {
        help.push_str(" [not served yet]");
    }
    let arg = match env_name(&flag) {
        Some(variable) => {
            arg.help(format!("{help} [env: {variable}]")).long_help(format!("{help}\n[env: {variable}]"))
        }
        None => arg,
    };
    if is_switch(&arg) {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
    } else {
        arg
    }
}
