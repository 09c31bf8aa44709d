//! The Query API of EC2.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::State as Extracted;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use ipnetwork::Ipv4Network;

use super::form::fields;
use super::state::{Fault, Route, State, Target};
use super::{MAIN, VPC};

type Shared = Arc<Mutex<State>>;
type Form = BTreeMap<String, String>;
/// What is answered: XML, or code and text of a refusal.
type Answer = Result<String, (u16, &'static str, String)>;

pub(super) fn service(state: Shared) -> Router {
    Router::new().route("/", post(call)).with_state(state)
}

async fn call(Extracted(state): Extracted<Shared>, headers: HeaderMap, body: String) -> Response {
    let form = fields(&body);
    let action = form.get("Action").cloned().unwrap_or_default();
    let fault = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.push(action.clone());
        state.fault(&action)
    };
    let answer = match fault {
        Some(Fault::Silent) => return std::future::pending().await,
        Some(Fault::Garbage) => return "<html><body>captive portal</body></html>".into_response(),
        Some(Fault::Throttled) => refuse(503, "RequestLimitExceeded", "Request limit exceeded."),
        Some(Fault::Unavailable) => refuse(503, "Unavailable", "The service is unavailable."),
        Some(Fault::Denied) => refuse(
            403,
            "UnauthorizedOperation",
            "You are not authorized to perform this operation. Encoded authorization failure message: AbCd",
        ),
        None if !is_signed(&headers) => refuse(401, "AuthFailure", "AWS was not able to validate the keys"),
        None => {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            act(&mut state, &action, &form)
        }
    };
    let (status, text) = match answer {
        Ok(content) => {
            (200, format!("<{action}Response><requestId>1</requestId>{content}</{action}Response>"))
        }
        Err((status, code, message)) => (
            status,
            format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
                 <RequestID>1</RequestID></Response>"
            ),
        ),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}")).into_response()
}

/// By keys of the role, in this region.
fn is_signed(headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = header("authorization");
    authorization.starts_with("AWS4-HMAC-SHA256 Credential=ASIAFLANNEL/")
        && authorization.contains("/eu-central-1/ec2/aws4_request")
        && header("x-amz-security-token") == "canary-token"
}

fn refuse(status: u16, code: &'static str, message: &str) -> Answer {
    Err((status, code, message.to_owned()))
}

fn act(state: &mut State, action: &str, form: &Form) -> Answer {
    let done = "<return>true</return>".to_owned();
    match action {
        "DescribeRouteTables" => describe(state, form),
        "DescribeNetworkInterfaces" => {
            let interface = field(form, "NetworkInterfaceId.1")?;
            let Some((_, instance)) = state.by_interface(interface) else {
                return refuse(400, "InvalidNetworkInterfaceID.NotFound", interface);
            };
            let is_checked = instance.is_checked;
            Ok(format!(
                "<networkInterfaceSet><item><networkInterfaceId>{interface}</networkInterfaceId>\
                 <sourceDestCheck>{is_checked}</sourceDestCheck></item></networkInterfaceSet>"
            ))
        }
        "ModifyNetworkInterfaceAttribute" => {
            let (interface, value) =
                (field(form, "NetworkInterfaceId")?, field(form, "SourceDestCheck.Value")? == "true");
            let found = state.instances.values_mut().find(|instance| instance.interface == interface);
            let Some(instance) = found else {
                return refuse(400, "InvalidNetworkInterfaceID.NotFound", interface);
            };
            instance.is_checked = value;
            applied(state, done)
        }
        "CreateRoute" | "ReplaceRoute" => {
            put(state, form, action == "CreateRoute").and_then(|()| applied(state, done))
        }
        "DeleteRoute" => {
            let destination = destination(form)?;
            let table = table(state, form)?;
            if table.routes.remove(&destination).is_none() {
                return refuse(400, "InvalidRoute.NotFound", &destination.to_string());
            }
            applied(state, done)
        }
        other => refuse(400, "InvalidAction", other),
    }
}

fn applied(state: &mut State, done: String) -> Answer {
    match state.apply() {
        Ok(()) => Ok(done),
        Err(error) => refuse(500, "InternalError", &format!("{error:#}")),
    }
}

fn field<'a>(form: &'a Form, name: &str) -> Result<&'a str, (u16, &'static str, String)> {
    form.get(name).map(String::as_str).ok_or_else(|| (400, "MissingParameter", name.to_owned()))
}

/// Without host bits, as EC2 takes them away.
fn destination(form: &Form) -> Result<Ipv4Network, (u16, &'static str, String)> {
    let text = field(form, "DestinationCidrBlock")?;
    let network: Option<Ipv4Network> = text.parse().ok();
    let network = network.and_then(|network| Ipv4Network::new(network.network(), network.prefix()).ok());
    network.ok_or_else(|| (400, "InvalidParameterValue", text.to_owned()))
}

fn table<'a>(
    state: &'a mut State,
    form: &Form,
) -> Result<&'a mut super::state::Table, (u16, &'static str, String)> {
    let id = field(form, "RouteTableId")?;
    state.tables.get_mut(id).ok_or_else(|| (400, "InvalidRouteTableID.NotFound", id.to_owned()))
}

fn put(state: &mut State, form: &Form, is_new: bool) -> Result<(), (u16, &'static str, String)> {
    let (destination, interface) = (destination(form)?, field(form, "NetworkInterfaceId")?.to_owned());
    if state.by_interface(&interface).is_none() {
        return Err((400, "InvalidNetworkInterfaceID.NotFound", interface));
    }
    if state.range.contains(destination.network()) {
        return Err((400, "InvalidParameterValue", format!("{destination} is within the VPC's range")));
    }
    let limit = state.limit;
    let table = table(state, form)?;
    match (table.routes.contains_key(&destination), is_new) {
        (true, true) => {
            return Err((400, "RouteAlreadyExists", format!("The route {destination} already exists")));
        }
        (false, false) => {
            return Err((400, "InvalidParameterValue", format!("There is no route {destination}")));
        }
        // The VPC's own route counts, too.
        (false, true) if table.routes.len() + 1 >= limit => {
            return Err((
                400,
                "RouteLimitExceeded",
                "The maximum number of routes has been reached.".to_owned(),
            ));
        }
        _ => {}
    }
    table.routes.insert(destination, Route { target: Target::Interface(interface), since: Instant::now() });
    Ok(())
}

fn describe(state: &State, form: &Form) -> Answer {
    let (mut ids, mut tags) = (BTreeSet::new(), BTreeMap::new());
    for number in 1.. {
        let Some(name) = form.get(&format!("Filter.{number}.Name")) else { break };
        let values: Vec<&String> =
            (1..).map_while(|place| form.get(&format!("Filter.{number}.Value.{place}"))).collect();
        match (name.as_str(), name.strip_prefix("tag:"), &values[..]) {
            // No subnet has a table of its own.
            ("association.subnet-id", ..) => return Ok("<routeTableSet/>".to_owned()),
            ("vpc-id", _, [vpc]) if *vpc == VPC => {}
            ("route-table-id", ..) => ids.extend(values.into_iter().cloned()),
            (_, Some(key), [value]) => {
                tags.insert(key.to_owned(), (*value).clone());
            }
            _ => return refuse(400, "InvalidParameterValue", name),
        }
    }
    let found = state.find(&ids, &tags);
    let from: usize = form.get("NextToken").and_then(|token| token.parse().ok()).unwrap_or(0);
    let until = from.saturating_add(state.page).min(found.len());
    let mut text = String::from("<routeTableSet>");
    for id in &found[from.min(until)..until] {
        write_table(state, id, &mut text);
    }
    text.push_str("</routeTableSet>");
    if until < found.len() {
        let _ = write!(text, "<nextToken>{until}</nextToken>");
    }
    Ok(text)
}

fn write_table(state: &State, id: &str, text: &mut String) {
    let range = state.range;
    let _ = write!(
        text,
        "<item><routeTableId>{id}</routeTableId><vpcId>{VPC}</vpcId><routeSet><item><destinationCidrBlock>{range}\
         </destinationCidrBlock><gatewayId>local</gatewayId><state>active</state><origin>CreateRouteTable</origin></item>"
    );
    let routes = state.tables.get(id).into_iter().flat_map(|table| &table.routes);
    for (destination, route) in routes.filter(|(_, route)| route.since.elapsed() >= state.delay) {
        let target = match &route.target {
            Target::Interface(interface) => format!("<networkInterfaceId>{interface}</networkInterfaceId>"),
            Target::Gateway(gateway) => format!("<gatewayId>{gateway}</gatewayId>"),
        };
        let life = if state.is_blackhole(&route.target) { "blackhole" } else { "active" };
        let _ = write!(
            text,
            "<item><destinationCidrBlock>{destination}</destinationCidrBlock>{target}<state>{life}</state>\
             <origin>CreateRoute</origin></item>"
        );
    }
    let main = if id == MAIN { "<item><main>true</main></item>" } else { "" };
    let _ = write!(text, "</routeSet><associationSet>{main}</associationSet></item>");
}
