//! What a cloud must be able to do: read its route tables, and put or remove one route.

use flannel_model::family::Addresses;
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;

use crate::CloudError;

/// This host, as it must be found in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The addresses of its interface in the underlay.
    pub addresses: Addresses,
    /// What tells its cluster from others, and is the same for all hosts of it.
    pub cluster: String,
}

/// The route tables of one cloud, as seen from one host. Nothing is decided here.
///
/// A future that is dropped may leave a call half done; the next [`RouteTables::read`] shows what came of it.
pub trait RouteTables: Send {
    /// Finds out what `host` is in the cloud, and reads every table that is to lead to it, with as few calls as can be.
    fn read<'a>(&'a mut self, host: &'a Host) -> BoxFuture<'a, Result<View, CloudError>>;

    /// Has `table` send what is for `subnet` to this host, instead of where the route `present` leads. Packets must at no
    /// time be without a route for that.
    ///
    /// [`Trouble::Conflict`](crate::Trouble::Conflict): what was read is out of date.
    fn put<'a>(
        &'a mut self,
        table: &'a Table,
        subnet: IpNetwork,
        present: Option<&'a Route>,
    ) -> BoxFuture<'a, Result<(), CloudError>>;

    /// Removes `route` from `table`. One that is gone already is no error.
    fn remove<'a>(&'a mut self, table: &'a Table, route: &'a Route) -> BoxFuture<'a, Result<(), CloudError>>;

    /// Has the cloud let this host send and receive packets whose addresses are not its own.
    fn allow_forwarding(&mut self) -> BoxFuture<'_, Result<(), CloudError>>;
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What this host is as the target of a route: a network interface or an instance, say.
    pub target: String,
    /// Where it is, for people: region, zone, network.
    pub place: String,
    /// The ranges of addresses that the cloud's network has itself. What is in them it delivers by itself, past every
    /// route.
    pub ranges: Vec<IpNetwork>,
    /// Whether this host may forward.
    pub forwarding: Forwarding,
    /// Every table that is to lead to this host, as far as it can be read.
    pub tables: Vec<Table>,
    /// Why not all of them are there.
    pub trouble: Option<CloudError>,
}

/// Whether the cloud lets this host send and receive packets whose addresses are not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// It does.
    Allowed,
    /// It drops them.
    Forbidden,
    /// It does not say, and why.
    Unknown(String),
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name or number.
    pub id: String,
    /// Its routes, whoever made them.
    pub routes: Vec<Route>,
    /// How many of them count against the quota.
    pub used: usize,
    /// The quota, if that is known.
    pub limit: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is for.
    pub destination: IpNetwork,
    /// Where it leads.
    pub target: Target,
    /// Whether the target is gone or stopped, so that packets are lost.
    pub is_dead: bool,
    /// Whether it is of the kind that flanneld makes: whoever removes another one takes somebody's route.
    pub is_flannels: bool,
    /// By which the cloud knows it, if not by its destination.
    pub id: Option<String>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this host.
    Own,
    /// To something of the kind that hosts are.
    Host(String),
    /// To something else: a gateway, say.
    Other(String),
}
