//! The Compute Engine API. <https://cloud.google.com/compute/docs/reference/rest/v1>

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::credentials::Credentials;
use super::environment::Environment;
use super::place::Place;
use super::refusal;
use super::resources::{
    AliasChange, Instance, Network, NewRoute, Operation, Progress, Project, Route, Routes,
};
use super::token::Token;
use crate::http::{Http, Method, Request, StatusCode};
use crate::{CloudError, Trouble};

/// For an answer that is there.
const PATIENCE: Duration = Duration::from_secs(20);
/// For one that comes when an operation ends: the API answers within two minutes whether or not it has.
const WAIT: Duration = Duration::from_secs(130);
/// For an operation to end. Stock flannel waits 100 s.
const OPERATION: Duration = Duration::from_secs(240);
/// Between two questions whether it has, in case that the API does not wait.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the quota is asked for: the answer is long and seldom another one.
const QUOTA: Duration = Duration::from_secs(3600);
/// Most pages of routes: more than any quota allows.
const PAGES: usize = 100;

/// The API.
pub(super) struct Compute {
    base: String,
    credentials: Credentials,
    http: Http,
    /// The VPC network that was asked for last.
    network: Option<(String, Network)>,
    /// The quota of routes, and when it was asked for.
    limit: Option<(Option<usize>, Instant)>,
}

/// Collections of operations are where the thing is that they change.
enum Scope<'a> {
    Global(&'a str),
    Zone(&'a str),
}

impl Compute {
    pub(super) fn new(environment: &Environment, credentials: Credentials, http: Http) -> Self {
        Self { base: environment.compute.clone(), credentials, http, network: None, limit: None }
    }

    /// This host's instance.
    pub(super) async fn instance(&mut self, place: &Place) -> Result<Instance, CloudError> {
        self.get("instances.get", &instance_path(place)).await
    }

    /// The VPC network; that it is there it has said before.
    pub(super) async fn network(&mut self, place: &Place) -> Result<Network, CloudError> {
        let path = format!("projects/{}/global/networks/{}", place.network_project, place.network);
        if let Some((of, network)) = &self.network
            && *of == path
        {
            return Ok(network.clone());
        }
        let network: Network = self.get("networks.get", &path).await?;
        self.network = Some((path, network.clone()));
        Ok(network)
    }

    /// Every route of the VPC network's project.
    pub(super) async fn routes(&mut self, vpc: &str) -> Result<Vec<Route>, CloudError> {
        const ACTION: &str = "routes.list";
        let path = format!("{}/global/routes?maxResults=500", project(vpc));
        let (mut routes, mut next) = (Vec::new(), None);
        for _ in 0..PAGES {
            let token = next.map(|token: String| utf8_percent_encode(&token, NON_ALPHANUMERIC).to_string());
            let page = token.map_or_else(|| path.clone(), |token| format!("{path}&pageToken={token}"));
            let page: Routes = self.get(ACTION, &page).await?;
            routes.extend(page.items);
            next = page.next_page_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(routes);
            }
        }
        Err(self.http.fail(CloudError::garbage(ACTION, "there is always one more page")))
    }

    /// How many routes the VPC network's project may have; nothing where it does not say so, or may not be asked. Nothing
    /// depends on it: where it cannot be asked it is what it was.
    pub(super) async fn limit(&mut self, vpc: &str) -> Option<usize> {
        if let Some((limit, since)) = self.limit
            && since.elapsed() < QUOTA
        {
            return limit;
        }
        let limit = match self.get::<Project>("projects.get", project(vpc)).await {
            Ok(project) => project.route_limit(),
            Err(error) if error.is(Trouble::Denied) => None,
            Err(_) => return self.limit.and_then(|(limit, _)| limit),
        };
        self.limit = Some((limit, Instant::now()));
        limit
    }

    /// Makes `route`, and waits until it is there.
    pub(super) async fn insert_route(&mut self, vpc: &str, route: &NewRoute) -> Result<(), CloudError> {
        let path = format!("{}/global/routes", project(vpc));
        let operation = self.send("routes.insert", Method::POST, &path, Some(route)).await?;
        self.finish("routes.insert", Scope::Global(project(vpc)), operation).await
    }

    /// Removes the route of that number, and waits until it is gone.
    pub(super) async fn delete_route(&mut self, vpc: &str, id: &str) -> Result<(), CloudError> {
        const ACTION: &str = "routes.delete";
        let path = format!("{}/global/routes/{id}", project(vpc));
        let operation = match self.send::<Operation>(ACTION, Method::DELETE, &path, None::<&()>).await {
            Err(error) if error.is(Trouble::NotFound) => return Ok(()),
            operation => operation?,
        };
        match self.finish(ACTION, Scope::Global(project(vpc)), operation).await {
            Err(error) if error.is(Trouble::NotFound) => Ok(()),
            ended => ended,
        }
    }

    /// Gives the interface other alias ranges, and waits until it has them.
    pub(super) async fn change_aliases(
        &mut self,
        place: &Place,
        change: &AliasChange,
    ) -> Result<(), CloudError> {
        const ACTION: &str = "instances.updateNetworkInterface";
        let path =
            format!("{}/updateNetworkInterface?networkInterface={}", instance_path(place), place.interface);
        let operation = self.send(ACTION, Method::PATCH, &path, Some(change)).await?;
        let zone = format!("projects/{}/zones/{}", place.project, place.zone);
        self.finish(ACTION, Scope::Zone(&zone), operation).await
    }

    /// Waits until `operation` has ended, and says how.
    async fn finish(
        &mut self,
        action: &'static str,
        scope: Scope<'_>,
        operation: Operation,
    ) -> Result<(), CloudError> {
        let (wait, operations) = match scope {
            Scope::Global(project) => ("globalOperations.wait", format!("{project}/global/operations")),
            Scope::Zone(zone) => ("zoneOperations.wait", format!("{zone}/operations")),
        };
        let (since, mut operation) = (Instant::now(), operation);
        while operation.status != Progress::Done {
            if since.elapsed() > OPERATION {
                let message = format!("timeout waiting for operation to finish: {}", operation.name);
                return Err(self.http.fail(CloudError::new(Trouble::Unavailable, action, message)));
            }
            let asked = Instant::now();
            let path = format!("{operations}/{}/wait", operation.name);
            operation = self.send(wait, Method::POST, &path, None::<&()>).await?;
            if operation.status != Progress::Done && asked.elapsed() < PAUSE {
                sleep(PAUSE).await;
            }
        }
        operation.error.filter(|error| !error.errors.is_empty()).map_or(Ok(()), |errors| {
            let (trouble, message) = refusal::of_operation(&errors);
            Err(self.http.fail(CloudError::new(trouble, action, message)))
        })
    }

    async fn get<T: DeserializeOwned>(&mut self, action: &'static str, path: &str) -> Result<T, CloudError> {
        self.send(action, Method::GET, path, None::<&()>).await
    }

    /// Sends a call. A token that is not taken is replaced once: the service account's key may have been.
    async fn send<T: DeserializeOwned>(
        &mut self,
        action: &'static str,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CloudError> {
        let body = body.map_or(Ok(Vec::new()), serde_json::to_vec);
        let body =
            Bytes::from(body.map_err(|error| CloudError::new(Trouble::Refused, action, error.to_string()))?);
        let patience = if path.ends_with("/wait") { WAIT } else { PATIENCE };
        let url = format!("{}/{path}", self.base);
        let mut tries = 2;
        loop {
            tries -= 1;
            let token = self.credentials.token().await?;
            let request = request(&method, &url, &token, body.clone()).map_err(|error| {
                CloudError::new(Trouble::Refused, action, format!("{url} is no URL: {error}"))
            })?;
            let answer = self.http.send(action, request, patience).await?;
            let status = answer.status();
            if status.is_success() {
                return serde_json::from_slice(answer.body())
                    .map_err(|error| self.http.fail(CloudError::garbage(action, error)));
            }
            if status == StatusCode::UNAUTHORIZED && tries > 0 {
                self.credentials.forget();
                continue;
            }
            let (trouble, message) = refusal::of_answer(status.as_u16(), answer.body());
            return Err(self.http.fail(CloudError::new(trouble, action, with_remedy(trouble, message))));
        }
    }
}

fn request(method: &Method, url: &str, token: &Token, body: Bytes) -> Result<Request<Bytes>, ::http::Error> {
    let request =
        Request::builder().method(method.clone()).uri(url).header("authorization", token.authorization());
    let request = if body.is_empty() { request } else { request.header("content-type", "application/json") };
    request.header("content-length", body.len()).body(body)
}

fn with_remedy(trouble: Trouble, message: String) -> String {
    match trouble {
        Trouble::Denied => format!(
            "{message} (the service account needs the permissions of docs/clouds.md, and the instance the access scope \
             compute-rw or cloud-platform)"
        ),
        Trouble::Full => format!("{message} (remove routes, or have the quota \"Routes\" raised)"),
        _ => message,
    }
}

/// `projects/P` of a path below it.
fn project(path: &str) -> &str {
    let end = path.match_indices('/').nth(1).map_or(path.len(), |(end, _)| end);
    &path[..end]
}

fn instance_path(place: &Place) -> String {
    format!("projects/{}/zones/{}/instances/{}", place.project, place.zone, place.instance)
}

#[cfg(test)]
mod tests {
    use super::project;

    #[test]
    fn the_project_of_a_path() {
        assert_eq!(project("projects/shop/global/networks/default"), "projects/shop");
        assert_eq!(project("projects/shop"), "projects/shop");
    }
}
