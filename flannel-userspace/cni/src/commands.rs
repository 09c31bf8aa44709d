//! What each command does.

use std::time::Duration;

use serde_json::Value;

use crate::attachments;
use crate::delegate_conf::DelegateConf;
use crate::error::{CniError, code};
use crate::net_conf::NetConf;
use crate::note::note;
use crate::plugin::Plugin;
use crate::prev_result;
use crate::readiness;
use crate::request::{Attachment, Command, Request};
use crate::saved::{self, Saved};
use crate::subnet_env;

/// So long ADD waits for the subnet file: flanneld writes it a few seconds after the runtime has found the network.
const PATIENCE: Duration = Duration::from_secs(5);

/// Carries out a command. ADD has a result.
///
/// # Errors
/// It was not carried out, or not completely.
pub fn carry_out(request: &Request, conf: &NetConf) -> Result<Option<Value>, CniError> {
    let network = Network { request, conf, saved: Saved::new(&conf.data_dir) };
    match &request.command {
        Command::Add(attachment) => return network.add(attachment).map(Some),
        Command::Del(attachment) => network.del(attachment),
        Command::Check(attachment) => network.check(attachment),
        Command::Status => network.status(),
        Command::Gc => network.gc(),
    }?;
    Ok(None)
}

/// A network, and what is asked of it.
struct Network<'a> {
    request: &'a Request,
    conf: &'a NetConf,
    saved: Saved<'a>,
}

impl Network<'_> {
    fn add(&self, attachment: &Attachment) -> Result<Value, CniError> {
        let env = subnet_env::await_file(&self.conf.subnet_file, PATIENCE)?;
        let delegate = DelegateConf::new(self.conf, &env)?;
        let former = self.saved.own(attachment)?;
        // First, so that DEL knows what to remove, wherever this ends.
        self.saved.keep(attachment, &delegate)?;
        let added = self.delegate(&delegate).add();
        if added.is_err() {
            let undone = match &former {
                // There is such an interface already, which is why it could not be made.
                Some(former) => self.saved.keep(attachment, &former.conf),
                None => self.remove(attachment, &delegate),
            };
            // The runtime asks for DEL, too; the file says what is left.
            undone.unwrap_or_else(|error| note(format_args!("flannel: ADD failed, and undoing it: {error}")));
        }
        added
    }

    fn remove(&self, attachment: &Attachment, delegate: &DelegateConf) -> Result<(), CniError> {
        self.delegate(delegate).carry_out("DEL")?;
        self.saved.forget(attachment, None)
    }

    /// The file stays until the delegate has succeeded: the runtime asks again.
    fn del(&self, attachment: &Attachment) -> Result<(), CniError> {
        let kept = self.saved.find(attachment, &self.conf.name)?;
        match kept.as_ref().map(|kept| kept.conf.clone()).or_else(|| self.rebuilt()) {
            Some(delegate) => self.delegate(&delegate).carry_out("DEL")?,
            None => {
                note(format_args!(
                    "flannel: nothing is known of {attachment:?}, so there is nothing to remove"
                ));
            }
        }
        self.saved.forget(attachment, kept.as_ref())
    }

    fn check(&self, attachment: &Attachment) -> Result<(), CniError> {
        let kept = self.saved.find(attachment, &self.conf.name)?.map(|kept| kept.conf);
        let Some(mut delegate) = kept.or_else(|| self.rebuilt()) else {
            let Attachment { container, interface } = attachment;
            let msg = format!("nothing is known of interface {interface} of container {container}");
            return Err(CniError::internal(msg));
        };
        // The result is of this version, which may be another than when the interface was made.
        delegate = delegate.with("cniVersion", self.conf.version());
        if let Some(result) = &self.conf.prev_result {
            delegate = delegate.with("prevResult", prev_result::with_gateways(result.clone()));
        }
        self.delegate(&delegate).carry_out("CHECK")
    }

    fn status(&self) -> Result<(), CniError> {
        let unavailable = |error: CniError| error.coded(code::NOT_AVAILABLE);
        let env = subnet_env::read(&self.conf.subnet_file).map_err(|error| unavailable(error.into()))?;
        let delegate = DelegateConf::new(self.conf, &env).map_err(unavailable)?;
        if let Some(complaint) = readiness::complaint(&self.conf.subnet_file) {
            return Err(CniError::new(code::LIMITED_CONNECTIVITY, complaint));
        }
        self.delegate(&delegate).carry_out("STATUS")
    }

    /// What is stale is removed by DEL: no plugin of the usual ones does anything about GC. What fails does not keep the
    /// rest from being removed.
    fn gc(&self) -> Result<(), CniError> {
        let valid = attachments::valid(&self.conf.fields)?;
        let mut outcome = Ok(());
        for stale in self.saved.stale(&self.conf.name, &valid)? {
            let removed = self.delegate(&stale.kept.conf).remove(&stale.attachment);
            outcome = outcome.and(removed.and_then(|()| saved::remove(&stale.kept.path)));
        }
        let Some(delegate) = self.rebuilt() else { return outcome };
        let delegate = attachments::said(&self.conf.fields)
            .into_iter()
            .fold(delegate, |delegate, (key, list)| delegate.with(key, list.clone()));
        outcome.and(self.delegate(&delegate).carry_out("GC"))
    }

    fn delegate<'a>(&'a self, conf: &'a DelegateConf) -> Plugin<'a> {
        Plugin { path: &self.request.path, conf }
    }

    /// What the delegate would be told now; without a subnet file, what the pod's addresses tell of it.
    fn rebuilt(&self) -> Option<DelegateConf> {
        let env = subnet_env::read(&self.conf.subnet_file).or_else(|error| {
            let told = self.conf.prev_result.as_ref().and_then(prev_result::subnet_env);
            told.ok_or(error)
        });
        let rebuilt = env.map_err(CniError::from).and_then(|env| DelegateConf::new(self.conf, &env));
        rebuilt.inspect_err(|error| note(format_args!("flannel: {error}"))).ok()
    }
}
