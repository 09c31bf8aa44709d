//! The terminal while `top` has it: it is given back however that ends.

use std::io;

use anyhow::Context as _;
use ratatui::{DefaultTerminal, Frame};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The terminal, drawn on as a whole. It is as it was once this is dropped, or when somebody panics.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal. From now on keys arrive one by one, Ctrl-C as well.
    ///
    /// # Errors
    /// The terminal cannot be set.
    pub(super) fn open() -> anyhow::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                ratatui::restore();
                Err(error).context("cannot draw on the terminal")
            }
        }
    }

    /// Draws.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<()> {
        self.0.draw(draw).map(drop).context("cannot draw on the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Signals upon which the terminal is given back before the process ends.
pub(super) struct Endings([Signal; 4]);

impl Endings {
    /// From now on they wait for [`Endings::next`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ]))
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) {
        let [terminate, hangup, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::File;
    use std::io::Read as _;
    use std::process::{Command, Stdio};
    use std::thread;

    use nix::pty::{Winsize, openpty};
    use nix::sys::termios::{LocalFlags, tcgetattr};

    use super::Screen;

    /// Set where this program is to panic on its terminal.
    const PANICS: &str = "FLANNELCTL_TEST_PANICS";

    #[test]
    fn the_terminal_is_given_back_after_a_panic() {
        if env::var_os(PANICS).is_some() {
            let mut screen = Screen::open().unwrap();
            screen.draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
            panic!("that was to be");
        }
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let before = tcgetattr(&pty.slave).unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "top::screen::tests::the_terminal_is_given_back_after_a_panic", "--nocapture"])
            .env(PANICS, "1")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let mut master = File::from(pty.master);
        let slave = pty.slave;
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            // The kernel ends it with EIO once nobody has the other end.
            let _ = master.read_to_end(&mut seen);
            String::from_utf8_lossy(&seen).into_owned()
        });
        assert!(!child.wait().unwrap().success());
        let after = tcgetattr(&slave).unwrap();
        drop(slave);
        let seen = reader.join().unwrap();
        let (taken, given_back) = (seen.find("\x1b[?1049h").unwrap(), seen.rfind("\x1b[?1049l").unwrap());
        let told = seen.find("that was to be").unwrap();
        assert!(taken < given_back && seen[taken..given_back].contains("drawn"), "{seen:?}");
        assert!(seen.find("\x1b[?1049l").unwrap() < told, "the message is lost with the screen: {seen:?}");
        assert!(after.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        assert_eq!(after.local_flags, before.local_flags);
    }
}
