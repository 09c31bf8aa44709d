//! The calls of EC2, signed.

use std::time::Duration;

use flannel_model::config::cloud::{RouteTables, TagFilter};
use flannel_model::family::Family;
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::answers::{self, Done, InterfacesAnswer, RouteItem, RouteTable, RouteTablesAnswer};
use super::chain::Chain;
use super::environment::Environment;
use super::errors::failure;
use super::imds::{Imds, Interface};
use super::signature::{Scope, signed};
use crate::http::{Http, StatusCode};
use crate::{CloudError, Route, Table, Target, Trouble};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(15);
const VERSION: &str = "2016-11-15";
const DESCRIBE: &str = "DescribeRouteTables";
/// Most tables of one answer.
const PAGE: &str = "100";
/// Most answers that are read for one question.
const MOST_PAGES: usize = 50;

/// EC2, in the region of this host.
pub(super) struct Ec2 {
    http: Http,
    chain: Chain,
    endpoint: Option<String>,
    region: Option<String>,
    domain: Option<String>,
    route_limit: usize,
    /// Whether the subnet of this host has no table of its own, and so uses the VPC's main one.
    uses_main: bool,
}

/// The tables that were found.
pub(super) struct Tables {
    pub(super) found: Vec<Table>,
    /// Why not all.
    pub(super) trouble: Option<CloudError>,
}

impl Ec2 {
    pub(super) fn new(environment: Environment, http: Http, route_limit: u32) -> Self {
        let (endpoint, region) = (environment.ec2.clone(), environment.region.clone());
        Self {
            chain: Chain::new(environment, http.clone()),
            http,
            endpoint,
            region,
            domain: None,
            route_limit: usize::try_from(route_limit).unwrap_or(usize::MAX),
            uses_main: false,
        }
    }

    /// Finds out where to ask.
    pub(super) async fn find(&mut self, imds: &mut Imds) -> Result<(), CloudError> {
        if self.region.is_none() {
            self.region = Some(imds.region().await?);
        }
        if self.domain.is_none() {
            self.domain = Some(imds.domain().await?);
        }
        Ok(())
    }

    pub(super) fn region(&self) -> &str {
        self.region.as_deref().unwrap_or_default()
    }

    /// The chosen tables, with all their routes.
    pub(super) async fn tables(
        &mut self,
        imds: &mut Imds,
        choice: &RouteTables,
        own: &Interface,
    ) -> Result<Tables, CloudError> {
        let (mut raw, mut missing) = (Vec::new(), None);
        match choice {
            RouteTables::Detected => raw.push(self.table_of_the_subnet(imds, own).await?),
            RouteTables::Named(ids) => {
                raw = self.describe(imds, &[("route-table-id", ids.clone())]).await?;
                let is_found = |id: &&String| raw.iter().any(|table| table.route_table_id == **id);
                missing =
                    ids.iter().find(|id| !is_found(id)).map(|id| format!("there is no route table {id}"));
            }
            RouteTables::Tagged(filters) => {
                let mut wanted: Vec<(String, Vec<String>)> =
                    vec![("vpc-id".to_owned(), vec![own.vpc.clone()])];
                wanted.extend(
                    filters
                        .iter()
                        .map(|TagFilter { key, value }| (format!("tag:{key}"), vec![value.clone()])),
                );
                raw = self.describe(imds, &wanted).await?;
                missing = raw.is_empty().then(|| format!("no route table of {} has {choice}", own.vpc));
            }
        }
        let is_ours = |table: &RouteTable| table.vpc_id == own.vpc;
        let elsewhere = raw.iter().find(|table| !is_ours(table)).map(|table| {
            let RouteTable { route_table_id, vpc_id, .. } = table;
            format!("{route_table_id} is a route table of {vpc_id}, and this host is in {}", own.vpc)
        });
        let trouble = missing.or(elsewhere).map(|message| self.fail(Trouble::NotFound, DESCRIBE, message));
        let found = raw.iter().filter(|table| is_ours(table)).map(|table| self.table(table, own)).collect();
        Ok(Tables { found, trouble })
    }

    /// The table with which the subnet is associated, or else the main one.
    async fn table_of_the_subnet(
        &mut self,
        imds: &mut Imds,
        own: &Interface,
    ) -> Result<RouteTable, CloudError> {
        let is_associated = |table: &RouteTable| {
            let mut associations = table.association_set.iter().flat_map(|set| &set.items);
            associations.any(|association| association.subnet_id.as_ref() == Some(&own.subnet))
        };
        let is_main = |table: &RouteTable| {
            table.association_set.iter().flat_map(|set| &set.items).any(|association| association.main)
        };
        if !self.uses_main {
            let found = self.describe(imds, &[("association.subnet-id", vec![own.subnet.clone()])]).await?;
            if let Some(table) = found.into_iter().find(is_associated) {
                return Ok(table);
            }
        }
        // One answer with all of them tells of an association that was made since.
        let all = self.describe(imds, &[("vpc-id", vec![own.vpc.clone()])]).await?;
        let associated = all.iter().find(|table| is_associated(table));
        self.uses_main = associated.is_none();
        let found = associated.or_else(|| all.iter().find(|table| is_main(table))).cloned();
        found.ok_or_else(|| self.fail(Trouble::NotFound, DESCRIBE, "main route table not found"))
    }

    fn table(&self, raw: &RouteTable, own: &Interface) -> Table {
        let items = &raw.route_set.items;
        let of = |family| {
            let is_counted = |item: &&RouteItem| item.origin.as_deref() != Some("EnableVgwRoutePropagation");
            let is_of = |item: &&RouteItem| match family {
                Family::V4 => item.destination_cidr_block.is_some(),
                Family::V6 => item.destination_ipv6_cidr_block.is_some(),
            };
            items.iter().filter(is_of).filter(is_counted).count()
        };
        Table {
            id: raw.route_table_id.clone(),
            routes: items.iter().filter_map(|item| route(item, own)).collect(),
            // The quota holds for each version.
            used: of(Family::V4).max(of(Family::V6)),
            limit: Some(self.route_limit),
        }
    }

    async fn describe<N: AsRef<str>>(
        &mut self,
        imds: &mut Imds,
        filters: &[(N, Vec<String>)],
    ) -> Result<Vec<RouteTable>, CloudError> {
        let mut fields = vec![("MaxResults".to_owned(), PAGE.to_owned())];
        for (number, (name, values)) in (1..).zip(filters) {
            fields.push((format!("Filter.{number}.Name"), name.as_ref().to_owned()));
            let value =
                |(place, value): (usize, &String)| (format!("Filter.{number}.Value.{place}"), value.clone());
            fields.extend((1..).zip(values).map(value));
        }
        let (mut tables, first) = (Vec::new(), fields.len());
        for _ in 0..MOST_PAGES {
            let answer: RouteTablesAnswer = self.call(imds, DESCRIBE, &fields).await?;
            tables.extend(answer.route_table_set.items);
            let Some(next) = answer.next_token.filter(|token| !token.is_empty()) else { return Ok(tables) };
            fields.truncate(first);
            fields.push(("NextToken".to_owned(), next));
        }
        Err(self.http.fail(CloudError::garbage(DESCRIBE, "it has no end")))
    }

    /// Whether the cloud drops what the interface sends in the name of others, and what it gets for others.
    pub(super) async fn checks_source(
        &mut self,
        imds: &mut Imds,
        interface: &str,
    ) -> Result<bool, CloudError> {
        let action = "DescribeNetworkInterfaces";
        let fields = [("NetworkInterfaceId.1".to_owned(), interface.to_owned())];
        let answer: InterfacesAnswer = self.call(imds, action, &fields).await?;
        let first = answer.network_interface_set.items.first().map(|item| item.source_dest_check);
        first.ok_or_else(|| {
            self.http.fail(CloudError::garbage(action, format!("it does not tell of {interface}")))
        })
    }

    pub(super) async fn stop_checking_source(
        &mut self,
        imds: &mut Imds,
        interface: &str,
    ) -> Result<(), CloudError> {
        let fields = [
            ("NetworkInterfaceId".to_owned(), interface.to_owned()),
            ("SourceDestCheck.Value".to_owned(), "false".to_owned()),
        ];
        self.change(imds, "ModifyNetworkInterfaceAttribute", &fields).await.map_err(|error| CloudError {
            message: format!("failed to disable SourceDestCheck on {interface}: {}", error.message),
            ..error
        })
    }

    pub(super) async fn create_route(
        &mut self,
        imds: &mut Imds,
        table: &str,
        subnet: IpNetwork,
        interface: &str,
    ) -> Result<(), CloudError> {
        let mut fields = place(table, subnet);
        fields.push(("NetworkInterfaceId".to_owned(), interface.to_owned()));
        self.change(imds, "CreateRoute", &fields).await
    }

    pub(super) async fn replace_route(
        &mut self,
        imds: &mut Imds,
        table: &str,
        subnet: IpNetwork,
        interface: &str,
    ) -> Result<(), CloudError> {
        let mut fields = place(table, subnet);
        fields.push(("NetworkInterfaceId".to_owned(), interface.to_owned()));
        let replaced: Result<Done, _> = self.call(imds, "ReplaceRoute", &fields).await;
        replaced.map(|_| ()).map_err(|error| {
            // Of a route that has gone since it was read.
            let is_gone = error.is(Trouble::Refused) && error.message.starts_with("InvalidParameterValue");
            CloudError { trouble: if is_gone { Trouble::Conflict } else { error.trouble }, ..error }
        })
    }

    pub(super) async fn delete_route(
        &mut self,
        imds: &mut Imds,
        table: &str,
        subnet: IpNetwork,
    ) -> Result<(), CloudError> {
        match self.change(imds, "DeleteRoute", &place(table, subnet)).await {
            Err(error) if error.is(Trouble::Conflict) => Ok(()),
            deleted => deleted,
        }
    }

    async fn change(
        &mut self,
        imds: &mut Imds,
        action: &'static str,
        fields: &[(String, String)],
    ) -> Result<(), CloudError> {
        let done: Done = self.call(imds, action, fields).await?;
        match done.is_done {
            true => Ok(()),
            false => {
                Err(self.fail(Trouble::Refused, action, "it was not done, and the cloud does not say why"))
            }
        }
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        imds: &mut Imds,
        action: &'static str,
        fields: &[(String, String)],
    ) -> Result<T, CloudError> {
        let region = self.region.clone().unwrap_or_default();
        let domain = self.domain.clone().unwrap_or_default();
        let credentials = self.chain.credentials(imds, (&region, &domain)).await?;
        let url = self.endpoint.clone().unwrap_or_else(|| format!("https://ec2.{region}.{domain}"));
        let mut form =
            vec![("Action".to_owned(), action.to_owned()), ("Version".to_owned(), VERSION.to_owned())];
        form.extend_from_slice(fields);
        let scope = Scope { region: &region, service: "ec2", time: Timestamp::now() };
        let request = signed(&url, answers::form(&form), &credentials, scope);
        let request = request.map_err(|error| self.fail(Trouble::Refused, action, error.to_string()))?;
        let answer = self.http.send(action, request, PATIENCE).await?;
        if answer.status() == StatusCode::OK {
            return answers::read(action, answer.body()).map_err(|error| self.http.fail(error));
        }
        let mut failure = failure(action, answer.status(), answer.body());
        if failure.is(Trouble::Denied) {
            // They may have been taken away, and others given.
            self.chain.forget();
            failure.message =
                format!("{} (keys from {}; {})", failure.message, credentials.from, remedy(action, fields));
        }
        Err(self.http.fail(failure))
    }

    fn fail(&self, trouble: Trouble, action: &'static str, message: impl Into<String>) -> CloudError {
        self.http.fail(CloudError::new(trouble, action, message))
    }
}

/// What to allow.
fn remedy(action: &str, fields: &[(String, String)]) -> String {
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let resource = match (field("RouteTableId"), field("NetworkInterfaceId")) {
        (Some(table), _) => format!("arn:aws:ec2:*:*:route-table/{table}"),
        (None, Some(interface)) => format!("arn:aws:ec2:*:*:network-interface/{interface}"),
        (None, None) => "*".to_owned(),
    };
    format!("they must be good, and allow ec2:{action} on {resource}")
}

fn place(table: &str, subnet: IpNetwork) -> Vec<(String, String)> {
    let destination = match Family::from(subnet) {
        Family::V4 => "DestinationCidrBlock",
        Family::V6 => "DestinationIpv6CidrBlock",
    };
    vec![("RouteTableId".to_owned(), table.to_owned()), (destination.to_owned(), subnet.to_string())]
}

/// A route to an address range; those to lists of prefixes are not told of.
fn route(item: &RouteItem, own: &Interface) -> Option<Route> {
    let destination = item.destination_cidr_block.as_ref().or(item.destination_ipv6_cidr_block.as_ref())?;
    let others = [
        &item.gateway_id,
        &item.nat_gateway_id,
        &item.transit_gateway_id,
        &item.vpc_peering_connection_id,
        &item.egress_only_internet_gateway_id,
        &item.local_gateway_id,
        &item.carrier_gateway_id,
        &item.core_network_arn,
    ];
    let target = match (&item.network_interface_id, &item.instance_id) {
        (Some(interface), _) if *interface == own.id => Target::Own,
        (Some(target), _) | (None, Some(target)) => Target::Host(target.clone()),
        (None, None) => {
            let other = others.into_iter().flatten().next();
            Target::Other(other.cloned().unwrap_or_else(|| "something unknown".to_owned()))
        }
    };
    Some(Route {
        destination: destination.parse().ok()?,
        target,
        is_dead: item.state.as_deref() == Some("blackhole"),
        is_flannels: item.origin.as_deref() == Some("CreateRoute"),
        id: None,
    })
}
