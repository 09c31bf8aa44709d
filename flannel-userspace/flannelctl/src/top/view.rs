//! What the user wants to see, and the keys for it.

use std::cmp::Reverse;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::board::Board;
use crate::peers::PeerRate;
use crate::table::{Column, Row as _};

/// What follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    /// A peer was opened.
    Open,
    Quit,
}

/// What is shown beside the summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Shown {
    #[default]
    Peers,
    /// One peer, by its subnet or public address.
    Peer(String),
    Help,
}

/// What the user wants to see.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) shown: Shown,
    /// By which column peers are sorted; without one, by how much they send and receive.
    sort: Option<usize>,
    is_reversed: bool,
    /// What peers' addresses contain.
    pub(super) filter: String,
    pub(super) is_typing: bool,
    /// Name of the peer that is chosen; without one it is the first.
    chosen: Option<String>,
    /// How many peers fit on a page.
    pub(super) page: usize,
}

impl View {
    /// The peers to show, in their order, and which of them is chosen.
    pub(super) fn peers(&self, all: &[PeerRate]) -> (Vec<PeerRate>, usize) {
        let mut peers: Vec<PeerRate> = all.iter().filter(|peer| self.asks_for(peer)).cloned().collect();
        match self.column() {
            Some(column) => peers.sort_by_cached_key(column.key),
            None => peers.sort_by_key(|peer| {
                Reverse(peer.sent_bytes_per_second.saturating_add(peer.received_bytes_per_second))
            }),
        }
        if self.is_reversed {
            peers.reverse();
        }
        let chosen = peers.iter().position(|peer| Some(name(peer)) == self.chosen).unwrap_or_default();
        (peers, chosen)
    }

    fn asks_for(&self, rate: &PeerRate) -> bool {
        let peer = &rate.peer;
        let words = [
            peer.subnet.map(|subnet| subnet.to_string()),
            Some(peer.public_ip.to_string()),
            peer.vtep_mac.clone(),
            peer.node.clone(),
            Some(peer.path.to_owned()),
        ];
        words.iter().flatten().any(|word| word.contains(&self.filter))
    }

    fn column(&self) -> Option<&'static Column<PeerRate>> {
        PeerRate::COLUMNS.get(self.sort?)
    }

    /// By what peers are sorted, for people.
    pub(super) fn order(&self) -> String {
        let column = self.column().map_or("rate", |column| column.name);
        if self.is_reversed { format!("{column}, reversed") } else { column.to_owned() }
    }

    /// The peer that is opened.
    pub(super) fn opened(&self) -> Option<&str> {
        match &self.shown {
            Shown::Peer(who) => Some(who),
            _ => None,
        }
    }

    /// Does what a key stands for.
    pub(super) fn press(&mut self, key: KeyEvent, board: &Board) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Stay;
        }
        self.press_among(key, board.peers())
    }

    fn press_among(&mut self, key: KeyEvent, peers: &[PeerRate]) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        if self.is_typing {
            self.type_key(key.code);
            return Next::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc => self.go_back(),
            KeyCode::Char('?' | 'h') => self.shown = Shown::Help,
            _ if self.shown == Shown::Help => self.shown = Shown::Peers,
            KeyCode::Enter if self.shown == Shown::Peers => return self.open(peers),
            KeyCode::Char('s') => self.sort = self.next_column(),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('/') => {
                self.is_typing = true;
                self.shown = Shown::Peers;
            }
            KeyCode::Up | KeyCode::Char('k') => self.choose(peers, |at, _| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(peers, |at, _| at + 1),
            KeyCode::PageUp => self.choose(peers, usize::saturating_sub),
            KeyCode::PageDown => self.choose(peers, |at, page| at + page),
            KeyCode::Home | KeyCode::Char('g') => self.choose(peers, |_, _| 0),
            KeyCode::End | KeyCode::Char('G') => self.choose(peers, |_, _| usize::MAX),
            _ => {}
        }
        Next::Stay
    }

    /// What is typed is the filter, which is in force at once.
    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    /// From a peer or the help to the peers, and from some peers to all.
    fn go_back(&mut self) {
        if self.shown == Shown::Peers {
            self.filter.clear();
        }
        self.shown = Shown::Peers;
    }

    fn next_column(&self) -> Option<usize> {
        let next = self.sort.map_or(0, |column| column + 1);
        PeerRate::COLUMNS.get(next).filter(|column| !column.is_optional).map(|_| next)
    }

    fn choose(&mut self, all: &[PeerRate], to: impl Fn(usize, usize) -> usize) {
        let (peers, at) = self.peers(all);
        let wanted = to(at, self.page.max(1)).min(peers.len().saturating_sub(1));
        self.chosen = peers.get(wanted).map(name);
    }

    fn open(&mut self, all: &[PeerRate]) -> Next {
        let (peers, chosen) = self.peers(all);
        match peers.get(chosen) {
            Some(peer) => {
                self.shown = Shown::Peer(name(peer));
                Next::Open
            }
            None => Next::Stay,
        }
    }
}

/// What tells a peer from others.
fn name(rate: &PeerRate) -> String {
    rate.peer.subnet.map_or_else(|| rate.peer.public_ip.to_string(), |subnet| subnet.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::{Next, PeerRate, Shown, View};
    use crate::peers::PeerName;

    /// The host of that number, sending so much and seen so long ago.
    pub(crate) fn rate(host: u8, sent: u64, received: u64, seen: Option<u64>) -> PeerRate {
        PeerRate {
            peer: PeerName {
                node: None,
                subnet: Some(format!("10.5.{host}.0/24").parse().unwrap()),
                public_ip: [192, 168, 77, host].into(),
                vtep_mac: None,
                path: "tunnel",
            },
            sent_packets_per_second: sent / 1000,
            sent_bytes_per_second: sent,
            received_packets_per_second: received / 1000,
            received_bytes_per_second: received,
            last_seen_seconds: seen,
        }
    }

    fn rates() -> Vec<PeerRate> {
        vec![rate(1, 0, 0, None), rate(2, 9000, 0, Some(5)), rate(3, 5000, 5000, Some(0))]
    }

    impl View {
        /// Presses one key after the other.
        pub(crate) fn keys(&mut self, codes: &[KeyCode]) -> Next {
            let press = |code: &KeyCode| self.press_among(KeyEvent::from(*code), &rates());
            codes.iter().map(press).last().unwrap()
        }

        /// Chooses the peer so many places further down.
        pub(crate) fn choose_for_test(&mut self, peers: &[PeerRate], places: usize) {
            self.choose(peers, |at, _| at + places);
        }

        fn hosts(&self) -> (Vec<u8>, usize) {
            let (peers, chosen) = self.peers(&rates());
            (peers.iter().map(|peer| peer.peer.public_ip.octets()[3]).collect(), chosen)
        }
    }

    #[test]
    fn peers_are_sorted_by_rate_and_then_by_each_column() {
        let mut view = View::default();
        assert_eq!((view.hosts(), view.order().as_str()), ((vec![3, 2, 1], 0), "rate"));
        view.keys(&[KeyCode::Char('s')]);
        assert_eq!((view.hosts().0, view.order().as_str()), (vec![1, 2, 3], "subnet"));
        while view.order() != "last-seen" {
            view.keys(&[KeyCode::Char('s')]);
        }
        assert_eq!(view.hosts().0, [3, 2, 1], "who was never seen is last");
        view.keys(&[KeyCode::Char('r')]);
        assert_eq!((view.hosts().0, view.order().as_str()), (vec![1, 2, 3], "last-seen, reversed"));
        view.keys(&[KeyCode::Char('s')]);
        assert_eq!(view.order(), "rate, reversed");
    }

    #[test]
    fn a_filter_is_typed_and_taken_back() {
        let mut view = View::default();
        view.keys(&[KeyCode::Char('/'), KeyCode::Char('7'), KeyCode::Char('.'), KeyCode::Char('2')]);
        assert_eq!(view.hosts().0, [2]);
        assert_eq!(view.keys(&[KeyCode::Char('q')]), Next::Stay, "it is a letter of the filter");
        assert_eq!(view.hosts().0, [] as [u8; 0]);
        view.keys(&[KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((view.hosts().0, view.is_typing), (vec![2], false));
        view.keys(&[KeyCode::Esc]);
        assert_eq!(view.hosts().0, [3, 2, 1]);
    }

    #[test]
    fn a_peer_stays_chosen_in_any_order_and_is_opened() {
        let mut view = View::default();
        view.keys(&[KeyCode::Down]);
        assert_eq!(view.hosts(), (vec![3, 2, 1], 1));
        view.keys(&[KeyCode::Char('r'), KeyCode::Char('s')]);
        assert_eq!(view.hosts(), (vec![3, 2, 1], 1));
        view.keys(&[KeyCode::End, KeyCode::Down]);
        assert_eq!(view.hosts().1, 2, "there is none below the last one");
        view.keys(&[KeyCode::Home, KeyCode::Up, KeyCode::PageDown]);
        assert_eq!(view.hosts().1, 1);
        assert_eq!(view.keys(&[KeyCode::Enter]), Next::Open);
        assert_eq!(view.opened(), Some("10.5.2.0/24"));
        view.keys(&[KeyCode::Esc]);
        assert_eq!(view.shown, Shown::Peers);
    }

    #[test]
    fn help_comes_and_goes_and_both_ways_out_work() {
        let mut view = View::default();
        view.keys(&[KeyCode::Char('?')]);
        assert_eq!(view.shown, Shown::Help);
        view.keys(&[KeyCode::Char('x')]);
        assert_eq!(view.shown, Shown::Peers);
        assert_eq!(view.keys(&[KeyCode::Char('q')]), Next::Quit);
        let mut typing = View { is_typing: true, ..View::default() };
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(typing.press_among(interrupt, &rates()), Next::Quit);
    }

    #[test]
    fn without_peers_no_key_does_harm() {
        let mut view = View::default();
        for code in [KeyCode::Enter, KeyCode::Down, KeyCode::End, KeyCode::PageUp, KeyCode::Char('s')] {
            assert_eq!(view.press_among(KeyEvent::from(code), &[]), Next::Stay);
        }
    }
}
