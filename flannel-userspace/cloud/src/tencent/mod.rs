//! Tencent Cloud: a route to each host's address in the first route table of its VPC.

mod answers;
mod api;
mod signature;

use flannel_model::config::access_key::AccessKeyConfig;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;
use serde_json::json;

use self::answers::{Done, INSTANCE, Table as AnsweredTable, Tables, Vpcs};
use self::api::Api;
use crate::http::Http;
use crate::{CloudError, Forwarding, Host, Route, RouteTables, Table, Trouble, View};

/// The route tables of a VPC.
pub(crate) struct TencentVpc {
    limit: Option<usize>,
    api: Api,
    /// This host's address and region at the last look.
    seen: Option<(String, String)>,
}

impl TencentVpc {
    /// As the configuration and the environment say.
    pub(crate) fn new(config: &AccessKeyConfig, http: Http) -> Self {
        Self { limit: config.route_limit, api: Api::new(config, http), seen: None }
    }

    fn seen(&self) -> Result<(String, String), CloudError> {
        let unknown = || CloudError::new(Trouble::Conflict, "own instance", "it is not known yet");
        self.seen.clone().ok_or_else(unknown)
    }

    async fn read(&mut self, host: &Host) -> Result<View, CloudError> {
        let address = host.addresses.v4.ok_or_else(|| {
            CloudError::new(Trouble::Refused, "own instance", "the underlay has no IPv4 address")
        })?;
        let address = address.to_string();
        let region = self.api.metadata().word("placement/region").await?;
        let mac = self.api.metadata().word("mac").await?;
        let vpc = self.api.metadata().word(&format!("network/interfaces/macs/{mac}/vpc-id")).await?;
        let filter = json!({"Filters": [{"Name": "vpc-id", "Values": [vpc]}]});
        let tables: Tables = self.api.call("DescribeRouteTables", &region, &filter).await?;
        let table = tables.route_table_set.into_iter().next().ok_or_else(|| {
            let message = format!("no suitable routing table found in {vpc}");
            CloudError::new(Trouble::NotFound, "DescribeRouteTables", message)
        })?;
        let view = View {
            target: address.clone(),
            place: format!("{vpc} in {region}"),
            ranges: self.ranges(&region, &vpc).await?,
            forwarding: Forwarding::Allowed,
            tables: vec![self.table(&table, &address)],
            trouble: None,
        };
        self.seen = Some((address, region));
        Ok(view)
    }

    /// The ranges of the VPC; none where they may not be asked for, as stock flannel does not.
    async fn ranges(&mut self, region: &str, vpc: &str) -> Result<Vec<IpNetwork>, CloudError> {
        match self.api.call::<Vpcs>("DescribeVpcs", region, &json!({"VpcIds": [vpc]})).await {
            Ok(vpcs) => Ok(vpcs.ranges()),
            Err(error) if error.is(Trouble::Denied) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn table(&self, table: &AnsweredTable, address: &str) -> Table {
        let mut routes: Vec<Route> =
            table.route_set.iter().filter_map(|entry| entry.route(address)).collect();
        routes.sort_by_key(|route| route.target != crate::Target::Own);
        Table { id: table.route_table_id.clone(), used: table.route_set.len(), routes, limit: self.limit }
    }

    async fn put(
        &mut self,
        table: &Table,
        subnet: IpNetwork,
        present: Option<&Route>,
    ) -> Result<(), CloudError> {
        let (address, region) = self.seen()?;
        // It is disabled, or leads elsewhere: there is nothing to lose.
        if let Some(route) = present {
            self.remove(table, route).await?;
        }
        let route = json!({
            "DestinationCidrBlock": subnet.to_string(),
            "GatewayType": INSTANCE,
            "GatewayId": address,
            "Enabled": true,
        });
        let routes = json!({"RouteTableId": table.id, "Routes": [route]});
        self.api.call::<Done>("CreateRoutes", &region, &routes).await?;
        Ok(())
    }

    async fn remove(&mut self, table: &Table, route: &Route) -> Result<(), CloudError> {
        let (_, region) = self.seen()?;
        let id: Option<u64> = route.id.as_deref().and_then(|id| id.parse().ok());
        let routes = json!({"RouteTableId": table.id, "Routes": [{"RouteId": id}]});
        match self.api.call::<Done>("DeleteRoutes", &region, &routes).await {
            Err(error) if error.is(Trouble::NotFound) => Ok(()),
            done => done.map(|_| ()),
        }
    }
}

impl RouteTables for TencentVpc {
    fn read<'a>(&'a mut self, host: &'a Host) -> BoxFuture<'a, Result<View, CloudError>> {
        self.read(host).boxed()
    }

    fn put<'a>(
        &'a mut self,
        table: &'a Table,
        subnet: IpNetwork,
        present: Option<&'a Route>,
    ) -> BoxFuture<'a, Result<(), CloudError>> {
        self.put(table, subnet, present).boxed()
    }

    fn remove<'a>(&'a mut self, table: &'a Table, route: &'a Route) -> BoxFuture<'a, Result<(), CloudError>> {
        self.remove(table, route).boxed()
    }

    fn allow_forwarding(&mut self) -> BoxFuture<'_, Result<(), CloudError>> {
        // Instances always may.
        async { Ok(()) }.boxed()
    }
}
