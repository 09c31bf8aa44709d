//! A pseudo-terminal with a program on it: keys go in, and what would be seen comes out.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::anyhow;
use flannel_tests::wait::{until, until_true};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(10);
const ROWS: NonZero<u16> = NonZero::new(40).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(130).unwrap();

pub(super) struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    seen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    before: Termios,
}

impl Terminal {
    /// Runs a program on a terminal of its own.
    pub(super) fn run(mut command: Command) -> Self {
        let size = Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        // Else daemons that are started meanwhile keep it open.
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let before = tcgetattr(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let seen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let master = File::from(pty.master);
        let (mut output, parser) = (master.try_clone().unwrap(), seen.clone());
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The kernel ends it with EIO once nobody has the other end.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                parser.lock().unwrap().process(&bytes[..read]);
            }
        });
        Self { child, master, slave: pty.slave, seen, reader: Some(reader), before }
    }

    /// Presses keys.
    pub(super) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// What is seen now.
    pub(super) fn picture(&self) -> String {
        self.seen.lock().unwrap().screen().contents()
    }

    /// Waits until what is seen `is_it`.
    pub(super) fn wait_for(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let waited = until_true(what, SOON, || is_it(&self.picture()));
        waited.map_err(|error| anyhow!("{error:#}:\n{}", self.picture())).unwrap();
    }

    /// Waits for the end, after which the terminal must be as it was. Returns also what is left to be seen.
    pub(super) fn end(mut self) -> (ExitStatus, String) {
        let end = || self.child.try_wait().unwrap().ok_or_else(|| anyhow!("it runs on"));
        let status = until("the program to end", SOON, end).unwrap();
        let after = tcgetattr(&self.slave).unwrap();
        drop(self.slave);
        self.reader.take().unwrap().join().unwrap();
        let seen = self.seen.lock().unwrap();
        assert!(
            !seen.screen().alternate_screen() && !seen.screen().hide_cursor(),
            "the terminal is not given back"
        );
        assert_eq!(after.local_flags, self.before.local_flags, "lines and echo are not as they were");
        assert_eq!(after.input_flags, self.before.input_flags);
        (status, seen.screen().contents())
    }
}
