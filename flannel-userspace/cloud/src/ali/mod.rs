//! Alibaba Cloud: a route entry to each host's instance in the first route table of its VPC's router.

mod answers;
mod api;
mod signature;

use std::time::Duration;

use flannel_model::config::access_key::AccessKeyConfig;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;
use tokio::time::{Instant, sleep};

use self::answers::{Done, Entry, Routers, Tables, Vpcs};
use self::api::Api;
use crate::backoff::Backoff;
use crate::http::Http;
use crate::{CloudError, Forwarding, Host, Route, RouteTables, Table, Target, Trouble, View};

/// How long a change may take, as with stock flannel: the cloud answers before it is done.
const CHANGE: Duration = Duration::from_secs(60);
/// Between two looks whether it is.
const PAUSE: Duration = Duration::from_secs(2);
/// How often a change is tried while the table is being changed by somebody else.
const TRIES: usize = 6;

/// The route tables of a VPC.
pub(crate) struct AliVpc {
    limit: Option<usize>,
    api: Api,
    /// What this host was at the last look.
    seen: Option<Seen>,
}

/// Where this host is.
#[derive(Clone)]
struct Seen {
    region: String,
    instance: String,
    router: String,
    table: String,
}

impl AliVpc {
    /// As the configuration and the environment say.
    pub(crate) fn new(config: &AccessKeyConfig, http: Http) -> Self {
        Self { limit: config.route_limit, api: Api::new(config, http), seen: None }
    }

    fn seen(&self) -> Result<Seen, CloudError> {
        let unknown = || CloudError::new(Trouble::Conflict, "own instance", "it is not known yet");
        self.seen.clone().ok_or_else(unknown)
    }

    async fn read(&mut self) -> Result<View, CloudError> {
        let region = self.api.metadata().word("region-id").await?;
        let instance = self.api.metadata().word("instance-id").await?;
        let vpc_id = self.api.metadata().word("vpc-id").await?;
        let missing = |action, what: &str| {
            CloudError::new(Trouble::NotFound, action, format!("{vpc_id} has no {what}"))
        };
        let vpcs: Vpcs = self.api.call("DescribeVpcs", &region, &[("VpcId", &vpc_id)]).await?;
        let vpc = vpcs.first().ok_or_else(|| missing("DescribeVpcs", "description"))?;
        let routers: Routers =
            self.api.call("DescribeVRouters", &region, &[("VRouterId", &vpc.router_id)]).await?;
        let table = routers.first_table().ok_or_else(|| missing("DescribeVRouters", "route table"))?;
        let ranges = vpc.ranges();
        let seen = Seen { region, instance, router: vpc.router_id, table };
        let entries = self.entries(&seen).await?;
        let mut routes: Vec<Route> = entries.iter().filter_map(|entry| entry.route(&seen.instance)).collect();
        routes.sort_by_key(|route| route.target != Target::Own);
        let used = entries.iter().filter(|entry| entry.is_custom()).count();
        let view = View {
            target: seen.instance.clone(),
            place: format!("{vpc_id} in {}", seen.region),
            ranges,
            forwarding: Forwarding::Allowed,
            tables: vec![Table { id: seen.table.clone(), routes, used, limit: self.limit }],
            trouble: None,
        };
        self.seen = Some(seen);
        Ok(view)
    }

    async fn entries(&mut self, seen: &Seen) -> Result<Vec<Entry>, CloudError> {
        const ACTION: &str = "DescribeRouteTables";
        let parameters = [("VRouterId", seen.router.as_str()), ("RouteTableId", &seen.table)];
        let tables: Tables = self.api.call(ACTION, &seen.region, &parameters).await?;
        let missing = || CloudError::new(Trouble::NotFound, ACTION, format!("{} is gone", seen.table));
        tables.entries().ok_or_else(missing)
    }

    async fn put(&mut self, subnet: IpNetwork, present: Option<&Route>) -> Result<(), CloudError> {
        let seen = self.seen()?;
        // It leads elsewhere: there is nothing to lose.
        if let Some(route) = present {
            self.delete(&seen, route).await?;
        }
        let destination = subnet.to_string();
        let parameters = [
            ("RouteTableId", seen.table.as_str()),
            ("DestinationCidrBlock", &destination),
            ("NextHopType", "Instance"),
            ("NextHopId", &seen.instance),
        ];
        self.change("CreateRouteEntry", &seen, &parameters).await?;
        self.wait("CreateRouteEntry", &seen, |entries| {
            entries.iter().any(|entry| entry.works(subnet) == Some(true))
        })
        .await
    }

    async fn delete(&mut self, seen: &Seen, route: &Route) -> Result<(), CloudError> {
        const ACTION: &str = "DeleteRouteEntry";
        let destination = route.destination.to_string();
        let mut parameters =
            vec![("RouteTableId", seen.table.as_str()), ("DestinationCidrBlock", &destination)];
        parameters.extend(route.id.as_deref().map(|instance| ("NextHopId", instance)));
        match self.change(ACTION, seen, &parameters).await {
            Err(error) if error.is(Trouble::NotFound) => return Ok(()),
            done => done?,
        }
        self.wait(ACTION, seen, |entries| {
            entries.iter().all(|entry| entry.works(route.destination).is_none())
        })
        .await
    }

    /// Changes the table, again and again while another change of it is under way.
    async fn change(
        &mut self,
        action: &'static str,
        seen: &Seen,
        parameters: &[(&str, &str)],
    ) -> Result<(), CloudError> {
        let mut backoff = Backoff::default();
        for _ in 1..TRIES {
            match self.api.call::<Done>(action, &seen.region, parameters).await {
                Err(error) if error.is(Trouble::Unavailable) => sleep(backoff.next()).await,
                done => return done.map(|_| ()),
            }
        }
        self.api.call::<Done>(action, &seen.region, parameters).await.map(|_| ())
    }

    /// Waits until the table is as `action` was to make it.
    async fn wait(
        &mut self,
        action: &'static str,
        seen: &Seen,
        is_done: impl Fn(&[Entry]) -> bool,
    ) -> Result<(), CloudError> {
        let since = Instant::now();
        loop {
            if is_done(&self.entries(seen).await?) {
                return Ok(());
            }
            if since.elapsed() > CHANGE {
                let message = format!("{} is not changed within {} s", seen.table, CHANGE.as_secs());
                return Err(CloudError::new(Trouble::Unavailable, action, message));
            }
            sleep(PAUSE).await;
        }
    }
}

impl RouteTables for AliVpc {
    fn read<'a>(&'a mut self, _: &'a Host) -> BoxFuture<'a, Result<View, CloudError>> {
        self.read().boxed()
    }

    fn put<'a>(
        &'a mut self,
        _: &'a Table,
        subnet: IpNetwork,
        present: Option<&'a Route>,
    ) -> BoxFuture<'a, Result<(), CloudError>> {
        self.put(subnet, present).boxed()
    }

    fn remove<'a>(&'a mut self, _: &'a Table, route: &'a Route) -> BoxFuture<'a, Result<(), CloudError>> {
        async move {
            let seen = self.seen()?;
            self.delete(&seen, route).await
        }
        .boxed()
    }

    fn allow_forwarding(&mut self) -> BoxFuture<'_, Result<(), CloudError>> {
        // Instances always may.
        async { Ok(()) }.boxed()
    }
}
