//! Amazon's Virtual Private Cloud: a route to each host's network interface in the route tables of the VPC.

mod answers;
mod chain;
mod credentials;
mod ec2;
mod environment;
mod errors;
mod imds;
mod profile;
mod signature;

use flannel_model::config::cloud::AwsVpcConfig;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;

use self::ec2::Ec2;
use self::environment::Environment;
use self::imds::{Imds, Interface};
use crate::http::Http;
use crate::{CloudError, Forwarding, Host, Route, RouteTables, Table, Trouble, View};

/// The route tables of a VPC.
pub(crate) struct AwsVpc {
    config: AwsVpcConfig,
    imds: Imds,
    ec2: Ec2,
    /// What this host was at the last look.
    interface: Option<Interface>,
}

impl AwsVpc {
    /// As the environment says.
    pub(crate) fn new(config: AwsVpcConfig, http: Http) -> Result<Self, CloudError> {
        let environment = Environment::of_process()?;
        let imds = Imds::new(&environment, http.clone());
        let ec2 = Ec2::new(environment, http, config.route_limit);
        Ok(Self { config, imds, ec2, interface: None })
    }

    fn interface(&self) -> Result<&Interface, CloudError> {
        let unknown = || CloudError::new(Trouble::Conflict, "own interface", "it is not known yet");
        self.interface.as_ref().ok_or_else(unknown)
    }

    async fn read(&mut self, host: &Host) -> Result<View, CloudError> {
        let interface = self.imds.interface(host).await?;
        self.ec2.find(&mut self.imds).await?;
        let tables = self.ec2.tables(&mut self.imds, &self.config.tables, &interface).await?;
        let forwarding = match self.ec2.checks_source(&mut self.imds, &interface.id).await {
            Ok(true) => Forwarding::Forbidden,
            Ok(false) => Forwarding::Allowed,
            Err(error) if error.is(Trouble::Denied) => Forwarding::Unknown(error.to_string()),
            Err(error) => return Err(error),
        };
        let view = View {
            target: interface.id.clone(),
            place: format!("{} in {}", interface.vpc, self.ec2.region()),
            ranges: interface.ranges.clone(),
            forwarding,
            tables: tables.found,
            trouble: tables.trouble,
        };
        self.interface = Some(interface);
        Ok(view)
    }
}

impl RouteTables for AwsVpc {
    fn read<'a>(&'a mut self, host: &'a Host) -> BoxFuture<'a, Result<View, CloudError>> {
        self.read(host).boxed()
    }

    fn put<'a>(
        &'a mut self,
        table: &'a Table,
        subnet: IpNetwork,
        present: Option<&'a Route>,
    ) -> BoxFuture<'a, Result<(), CloudError>> {
        async move {
            let target = self.interface()?.id.clone();
            match present {
                None => self.ec2.create_route(&mut self.imds, &table.id, subnet, &target).await,
                Some(_) => self.ec2.replace_route(&mut self.imds, &table.id, subnet, &target).await,
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a mut self, table: &'a Table, route: &'a Route) -> BoxFuture<'a, Result<(), CloudError>> {
        self.ec2.delete_route(&mut self.imds, &table.id, route.destination).boxed()
    }

    fn allow_forwarding(&mut self) -> BoxFuture<'_, Result<(), CloudError>> {
        async move {
            let target = self.interface()?.id.clone();
            self.ec2.stop_checking_source(&mut self.imds, &target).await
        }
        .boxed()
    }
}
