//! Google Compute Engine: a route of the VPC network to each host, or the pods' addresses as alias range of its interface.

mod alias;
mod compute;
mod credentials;
mod environment;
mod key_file;
mod metadata;
mod name;
mod place;
mod refusal;
mod resources;
mod token;
mod view;

use flannel_model::config::gce::GceConfig;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;

use self::alias::Aliases;
use self::compute::Compute;
use self::credentials::Credentials;
use self::environment::Environment;
use self::metadata::Metadata;
use self::name::Cluster;
use self::place::Place;
use self::resources::path_of;
use self::view::Eye;
use crate::http::Http;
use crate::{CloudError, Forwarding, Host, Route, RouteTables, Table, Target, Trouble, View};

/// The routes of a VPC network, or the interface of an instance.
pub(crate) struct Gce {
    config: GceConfig,
    metadata: Metadata,
    compute: Compute,
    /// What this host was at the last look.
    seen: Option<Seen>,
}

/// What this host is in the cloud.
#[derive(Clone, Debug)]
struct Seen {
    place: Place,
    eye: Eye,
    aliases: Aliases,
}

impl Gce {
    /// As the environment says.
    pub(crate) fn new(config: GceConfig, http: Http) -> Self {
        let environment = Environment::of_process();
        let metadata = Metadata::new(&environment, http.clone());
        let credentials = Credentials::new(&environment, metadata.clone(), http.clone());
        let compute = Compute::new(&environment, credentials, http);
        Self { config, metadata, compute, seen: None }
    }

    fn seen(&self) -> Result<Seen, CloudError> {
        let unknown = || CloudError::new(Trouble::Conflict, "own instance", "it is not known yet");
        self.seen.clone().ok_or_else(unknown)
    }

    async fn read(&mut self, host: &Host) -> Result<View, CloudError> {
        let place = self.metadata.place(host.addresses.v4).await?;
        let instance = self.compute.instance(&place).await?;
        let network = self.compute.network(&place).await?;
        let path = |url: &str| {
            let path = path_of(url).filter(|path| path.split('/').all(place::is_name));
            path.map(str::to_owned)
                .ok_or_else(|| CloudError::garbage("networks.get", format!("a selfLink {url:?}")))
        };
        let vpc = path(&network.self_link)?;
        let eye = Eye {
            cluster: Cluster::of(&vpc, &host.cluster),
            vpc,
            instance: path(&instance.self_link)?,
            address: place.address,
        };
        let aliases = Aliases::of(&instance, &place.interface)?;
        let view = if self.config.alias_ranges {
            View {
                target: format!("{} of {}", place.interface, place.instance),
                place: format!("{} in {}", eye.vpc, place.zone),
                // The addresses of pods are to be some of the subnetwork's.
                ranges: Vec::new(),
                forwarding: Forwarding::Allowed,
                tables: vec![aliases.table(&place)],
                trouble: None,
            }
        } else {
            let routes = self.compute.routes(&eye.vpc).await?;
            let limit = self.compute.limit(&eye.vpc).await;
            let used = routes.iter().filter(|route| route.is_static()).count();
            View {
                target: place.instance.clone(),
                place: format!("{} in {}", eye.vpc, place.zone),
                ranges: eye.ranges(&routes),
                forwarding: if instance.can_ip_forward { Forwarding::Allowed } else { Forwarding::Forbidden },
                tables: vec![Table { id: eye.vpc.clone(), routes: eye.routes(&routes), used, limit }],
                trouble: None,
            }
        };
        self.seen = Some(Seen { place, eye, aliases });
        Ok(view)
    }

    async fn put(&mut self, table: &Table, subnet: IpNetwork) -> Result<(), CloudError> {
        let Seen { place, eye, aliases } = self.seen()?;
        if self.config.alias_ranges {
            let change = aliases.with(subnet, self.config.secondary_range.as_deref());
            return self.compute.change_aliases(&place, &change).await;
        }
        let route = eye.new_route(subnet)?;
        let to_subnet = table.routes.iter().filter(|route| route.destination == subnet);
        let (own, others): (Vec<&Route>, Vec<&Route>) =
            to_subnet.partition(|route| route.target == Target::Own);
        // One of them may have the name of the new one, and what they forward is lost already.
        for route in others.into_iter().filter(|route| route.is_flannels) {
            if let Some(id) = &route.id {
                self.compute.delete_route(&eye.vpc, id).await?;
            }
        }
        if own.is_empty() { self.compute.insert_route(&eye.vpc, &route).await } else { Ok(()) }
    }

    async fn remove(&mut self, route: &Route) -> Result<(), CloudError> {
        let Seen { place, eye, aliases } = self.seen()?;
        match &route.id {
            Some(id) if !self.config.alias_ranges => self.compute.delete_route(&eye.vpc, id).await,
            _ => self.compute.change_aliases(&place, &aliases.without(route.destination)).await,
        }
    }

    /// Nobody can while it runs.
    fn refuse_to_allow(&self) -> Result<(), CloudError> {
        let instance = self.seen()?.place.instance;
        Err(CloudError::new(
            Trouble::Refused,
            "canIpForward",
            format!(
                "the instance {instance} may not forward packets (canIpForward is false), so the network drops those of \
                 its pods: make it with \"gcloud compute instances create --can-ip-forward\", or set canIpForward with \
                 \"gcloud compute instances update-from-file\", or set AliasRanges of the gce backend"
            ),
        ))
    }
}

impl RouteTables for Gce {
    fn read<'a>(&'a mut self, host: &'a Host) -> BoxFuture<'a, Result<View, CloudError>> {
        self.read(host).boxed()
    }

    fn put<'a>(
        &'a mut self,
        table: &'a Table,
        subnet: IpNetwork,
        _: Option<&'a Route>,
    ) -> BoxFuture<'a, Result<(), CloudError>> {
        self.put(table, subnet).boxed()
    }

    fn remove<'a>(&'a mut self, _: &'a Table, route: &'a Route) -> BoxFuture<'a, Result<(), CloudError>> {
        self.remove(route).boxed()
    }

    fn allow_forwarding(&mut self) -> BoxFuture<'_, Result<(), CloudError>> {
        let refusal = self.refuse_to_allow();
        async { refusal }.boxed()
    }
}
