//! Keeps the route tables of clouds in step: there, and nowhere else, stands which host has which subnet.
//!
//! What is the same in every cloud lives here: [`Keeper`] compares what [`RouteTables`] reads with what this host needs and
//! puts right what differs, without end; with it the HTTP client, the errors and the metrics. Each cloud is a folder with
//! one implementation of [`RouteTables`], and a line in [`of`]. What a host leases, and what is in its kernel, is not here.

mod access_key;
mod ali;
mod aws;
mod backoff;
mod error;
mod gce;
mod herd;
mod http;
mod instance_metadata;
mod keeper;
mod routes;
mod signed_api;
mod tencent;

use flannel_control::cloud_metrics::CloudMetrics;
use flannel_model::config::CloudConfig;

pub use error::{CloudError, Trouble};
pub use keeper::{Keeper, Memory, Reports, Seen};
pub use routes::{Forwarding, Host, Route, RouteTables, Table, Target, View};

use crate::http::Http;

/// The route tables of that cloud. It is asked nothing yet.
///
/// # Errors
/// The certificates of authorities cannot be read; a setting in the environment cannot be used.
pub fn of(config: &CloudConfig, metrics: &CloudMetrics) -> Result<Box<dyn RouteTables>, CloudError> {
    let http = Http::new(metrics.clone())?;
    match config {
        CloudConfig::AwsVpc(config) => Ok(Box::new(aws::AwsVpc::new(config.clone(), http)?)),
        CloudConfig::Gce(config) => Ok(Box::new(gce::Gce::new(config.clone(), http))),
        CloudConfig::TencentVpc(config) => Ok(Box::new(tencent::TencentVpc::new(config, http))),
        CloudConfig::AliVpc(config) => Ok(Box::new(ali::AliVpc::new(config, http))),
    }
}
