//! `flannelctl top`: peers by rate, drops, the bypass and the daemon's conditions, live.

mod board;
mod draw;
mod figures;
mod screen;
mod view;

use std::io::{IsTerminal as _, stdin, stdout};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use crossterm::event::{Event, EventStream};
use futures::future::{Fuse, FusedFuture as _};
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{MissedTickBehavior, interval};

use self::board::{Board, Look};
use self::screen::{Endings, Screen};
use self::view::{Next, View};
use super::exit::{Code, Failure, Outcome};
use super::place::Context;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Look again every so many seconds.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    interval: u64,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        if context.printer.is_json() || !stdin().is_terminal() || !stdout().is_terminal() {
            let message = "top needs a terminal to draw on and to read keys from: elsewhere use `flannelctl peers \
                           --watch`, `counters --watch` or `status --watch`, which have `-o json`, too";
            return Err(Failure::new(Code::NoTerminal, message).into());
        }
        // What cannot be read at all is said in the ordinary way.
        let mut board = Board::open(context).await?;
        let mut view = View::default();
        let mut endings = Endings::new()?;
        let mut screen = Screen::open()?;
        let mut events = EventStream::new();
        let mut ticks = interval(Duration::from_secs(self.interval));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Keys are read while a look takes its time.
        let look = |opened: Option<&str>| Look::take(context, opened.map(str::to_owned)).fuse();
        let mut looking = pin!(Fuse::terminated());
        // The first one is at once.
        ticks.tick().await;
        loop {
            screen.draw(|frame| draw::draw(frame, &mut view, &board, context.printer.has_colours()))?;
            tokio::select! {
                event = events.next() => match event.transpose()? {
                    Some(Event::Key(key)) => match view.press(key, &board) {
                        Next::Stay => {}
                        Next::Open => {
                            board.peer = None;
                            looking.set(look(view.opened()));
                        }
                        Next::Quit => return Ok(Outcome::AsItShouldBe),
                    },
                    // The terminal has another size, or the like.
                    Some(_) => {}
                    None => return Ok(Outcome::AsItShouldBe),
                },
                found = &mut looking => board.update(found),
                _ = ticks.tick() => if looking.is_terminated() {
                    looking.set(look(view.opened()));
                },
                () = endings.next() => return Ok(Outcome::AsItShouldBe),
            }
        }
    }
}
