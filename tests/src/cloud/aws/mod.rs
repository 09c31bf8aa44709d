//! Amazon's cloud, as far as a host meets it: the metadata service and the API of EC2, with what they refuse. Signatures
//! are not checked here.

mod ec2;
mod form;
mod imds;
mod state;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;

pub use state::{Fault, Life, Metadata, Route, State, Target};

use super::{Router, Server};
use crate::network::{Host, Network};

/// Where every instance finds its metadata.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where EC2 answers.
const EC2: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 77, 254), 8080);
/// The only VPC.
pub const VPC: &str = "vpc-0123456789abcdef0";
/// Its main route table, which all its subnets use.
pub const MAIN: &str = "rtb-0123456789abcdef0";

/// The cloud. It ends when dropped.
#[derive(Debug)]
pub struct Aws {
    state: Arc<Mutex<State>>,
    _services: [Server; 2],
}

impl Aws {
    /// Runs the cloud whose router is that of `network`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(network: &Network) -> Result<Self> {
        let router = Router::of(network)?;
        let namespace = router.namespace().clone();
        namespace.ip(&format!("address add {METADATA}/32 dev lo"))?;
        let state = Arc::new(Mutex::new(State::new(router)));
        let metadata =
            Server::start(&namespace, SocketAddrV4::new(METADATA, 80), imds::service(state.clone()))?;
        let api = Server::start(&namespace, EC2, ec2::service(state.clone()))?;
        Ok(Self { state, _services: [metadata, api] })
    }

    /// Has `host` be an instance, with a role, and the source check that every interface begins with.
    ///
    /// # Errors
    /// The router cannot be told.
    pub fn launch(&self, host: &Host) -> Result<()> {
        let mac = Router::mac_of(host)?;
        self.state().launch(host.address, mac)
    }

    /// The variables by which a daemon finds EC2 here.
    #[must_use]
    pub fn variables() -> Vec<(String, String)> {
        vec![("AWS_ENDPOINT_URL_EC2".to_owned(), format!("http://{EC2}"))]
    }

    /// Everything there is, to look at and to change; [`State::apply`] has the router obey.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The route for `destination` in a table.
    ///
    /// # Errors
    /// There is no such table.
    pub fn route(&self, table: &str, destination: Ipv4Network) -> Result<Option<Route>> {
        let state = self.state();
        let table = state.tables.get(table).with_context(|| format!("there is no {table}"))?;
        Ok(table.routes.get(&destination).cloned())
    }

    /// How often an action was asked for, whatever came of it.
    #[must_use]
    pub fn calls(&self, action: &str) -> usize {
        self.state().calls.iter().filter(|call| *call == action).count()
    }
}
