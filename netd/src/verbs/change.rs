//! Verbs that change a network under its guests: apply, update, confirm, and what takes a change back.
//!
//! ```text
//! check ──► plan ──► record (changing) ──► steps ──► look again ──► definition ──► record (active) ──► reply
//!                          │ any failure, or a daemon that ends: the same plan the other way round
//!                          ▼
//!                    as it was before
//! ```
//!
//! A change that is to be confirmed is live at once, but the definition waits for the word: a host that is started
//! again has the old one. Its record says until when, and what to go back to.

use netd_api::{ChangeReply, EventKind, NetworkReply};

use super::{Host, VerbError, Verbs, random_mac, reply};
use crate::{
    apply::{ApplyError, Outcome, StepError},
    change::{self, Edit, Forwards, LiveStep, Shared},
    events::lifecycle,
    hooks::Operation,
    host::HostState,
    model::{Network, NetworkName},
    plan::{Desired, Ground, Step},
    port::DEFAULT_MTU,
    registry::{Affect, Apply, Change, Live, LiveChange, Refusal},
    store::{Before, Deadline, Definition, Phase, Record},
    xml,
};

/// More seconds than anyone waits for a word: a day.
const LONGEST_WAIT: u32 = 86_400;

/// How a change is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Take it back after so many seconds unless it is confirmed.
    pub confirm: Option<u32>,
}

/// A change with its steps.
struct Planned {
    network: Network,
    from: Desired,
    to: Desired,
    shared: Shared,
    steps: Vec<Step>,
    /// Every network's forwards, in our table and as they should be.
    before: Vec<nat::Forward>,
    after: Vec<nat::Forward>,
}

impl<H: Host> Verbs<H> {
    /// Has this network, defined and active: changes what is there, under its guests, or defines and starts it.
    pub async fn apply_network(&self, text: &str, how: How) -> Result<ChangeReply, VerbError> {
        let _turn = self.turn.lock().await;
        if let Some(seconds) = how.confirm.filter(|seconds| !(1..=LONGEST_WAIT).contains(seconds)) {
            let (value, expected) = (seconds.to_string(), format!("a number of seconds from 1 to {LONGEST_WAIT}"));
            return Err(Refusal::Argument { what: "confirm", value, expected }.into());
        }
        let (network, has_uuid) = (xml::parse(text)?, xml::has_uuid(text));
        let host = self.host.observe().await?;
        let apply =
            self.registry().apply(network, has_uuid, &host, random_mac()).map_err(|refusal| refusal.in_text(text))?;
        match apply {
            Apply::Start(network) if how.confirm.is_some() => {
                Err(Refusal::ConfirmStart(network.name.to_string()).into())
            }
            Apply::Start(network) => self.apply_start(*network, &host, how.dry_run).await,
            Apply::Change(change) => self.apply_change(*change, &host, how, Affect { live: true, config: true }).await,
        }
    }

    /// Edits one section of a network: live, in its definition, or both; by default what is current.
    pub async fn update_network(&self, key: &str, edit: Edit<'_>, affect: Affect) -> Result<ChangeReply, VerbError> {
        let _turn = self.turn.lock().await;
        let host = self.host.observe().await?;
        let (change, affected) = self.registry().update(key, &edit, affect, &host)?;
        self.apply_change(change, &host, How::default(), affected).await
    }

    async fn apply_start(&self, network: Network, host: &HostState, dry_run: bool) -> Result<ChangeReply, VerbError> {
        let name = network.name.clone();
        let mut steps = Vec::new();
        let known = self.registry().find(name.as_str()).ok().and_then(|(_, entry)| entry.definition.clone());
        if known.as_ref() != Some(&network) {
            steps.push(format!("define network {name}"));
        }
        let mut preview = self.registry().clone();
        preview.defined(network.clone());
        let start = preview.start(name.as_str(), host, random_mac())?;
        steps.extend(start.steps.iter().map(Step::to_string));
        let nothing = nat::Network {
            mode: nat::Mode::Open,
            subnets: Vec::new(),
            dns_redirect: None,
            ..start.desired.firewall.clone()
        };
        let rules = nat::difference((&nothing, &[]), (&start.desired.firewall, &[]));
        let said = ChangeReply {
            network: None,
            name: name.to_string(),
            changed: true,
            live: true,
            config: true,
            steps,
            rules,
            confirm_within: None,
            notices: start.notices,
        };
        if dry_run {
            return Ok(said);
        }
        let is_new = known.is_none();
        self.save_definition(&network)?;
        self.registry_mut().defined(network);
        match self.start_now(name.as_str(), host).await {
            Ok(NetworkReply { network, notices }) => Ok(ChangeReply { network: Some(network), notices, ..said }),
            Err(error) => {
                self.restore_definition(&name, known.as_ref().map_or(Definition::Absent, definition_of), is_new);
                Err(error)
            }
        }
    }

    async fn apply_change(
        &self,
        change: Change,
        host: &HostState,
        how: How,
        affected: Affect,
    ) -> Result<ChangeReply, VerbError> {
        let Change { name, live, definition } = change;
        let mut said = ChangeReply {
            network: self.registry().view(&name),
            name: name.to_string(),
            changed: live.is_some() || definition.is_some(),
            live: affected.live,
            config: affected.config,
            steps: Vec::new(),
            rules: Vec::new(),
            confirm_within: None,
            notices: Vec::new(),
        };
        let planned = live.map(|live| self.plan_change(live, host));
        if let Some(planned) = &planned {
            said.steps = planned.steps.iter().map(Step::to_string).collect();
            said.rules =
                nat::difference((&planned.from.firewall, &planned.before), (&planned.to.firewall, &planned.after));
            if planned.steps.is_empty() {
                said.steps.push(format!("note what network {name} is called and described as"));
            }
        }
        if definition.is_some() {
            let when = if how.confirm.is_some() { ", once confirmed" } else { "" };
            said.steps.push(format!("write the definition of network {name}{when}"));
        }
        if how.dry_run || !said.changed {
            return Ok(said);
        }
        match planned {
            Some(planned) => {
                said.confirm_within =
                    self.carry_out_change(&name, planned, definition, how.confirm).await?.map(i64::from);
            }
            None => {
                if let Some(definition) = definition {
                    self.save_definition(&definition)?;
                    let event = lifecycle(name.as_str(), definition.uuid, EventKind::Defined);
                    self.registry_mut().defined(definition);
                    self.events.tell(event);
                }
            }
        }
        said.network = self.registry().view(&name);
        Ok(said)
    }

    fn plan_change(&self, change: LiveChange, host: &HostState) -> Planned {
        let LiveChange { network, from, to, shared } = change;
        let before = self.applied().clone();
        let live = Live { network: network.clone(), desired: to.clone(), journal: Vec::new() };
        let after = self.registry().with_live(live).forwards(&self.host);
        let forwards = Forwards { before: &before, after: &after };
        let steps = change::plan(&from, &to, host, &shared, Some(forwards));
        Planned { network, from, to, shared, steps, before, after }
    }

    /// Returns within how many seconds the change must be confirmed, if it must.
    async fn carry_out_change(
        &self,
        name: &NetworkName,
        mut planned: Planned,
        definition: Option<Network>,
        confirm: Option<u32>,
    ) -> Result<Option<u32>, VerbError> {
        let (was, known) = {
            let registry = self.registry();
            let (_, entry) = registry.find(name.as_str())?;
            let live = entry.live.clone().ok_or_else(|| Refusal::NotActive(name.to_string()))?;
            (live, entry.definition.clone())
        };
        let mut before = Before {
            xml: xml::write(&was.network),
            journal: was.journal.clone(),
            definition: match (&definition, confirm) {
                (Some(_), None) => known.as_ref().map_or(Definition::Absent, definition_of),
                _ => Definition::Untouched,
            },
            confirmed: None,
            deadline: None,
        };
        let mut record = Record {
            name: name.to_string(),
            phase: Phase::Changing,
            xml: xml::write(&planned.network),
            journal: change::journal(&was.journal, &planned.to, &planned.steps),
            before: Some(before.clone()),
        };
        self.store.save_record(&record)?;
        let mut attempted = Vec::new();
        let mut result = self.do_steps(name, &mut planned, &mut attempted).await;
        if result.is_ok() {
            record.journal = change::journal(&was.journal, &planned.to, &attempted);
            record.phase = Phase::Active;
            record.before = confirm.map(|seconds| {
                before.confirmed = definition.as_ref().map(xml::write);
                before.deadline = Some(Deadline { at: self.host.uptime() + u64::from(seconds), seconds });
                before.clone()
            });
            result = self.keep_change(name, &planned, &record, definition.as_ref().filter(|_| confirm.is_none()));
        }
        if let Err(error) = result {
            tracing::error!("network {name} not changed: {error}");
            self.abandon(name, &planned, &attempted, before).await;
            return Err(error);
        }
        let Planned { network, from, to, after, .. } = planned;
        {
            let mut registry = self.registry_mut();
            registry.started(Live { network, desired: to.clone(), journal: record.journal });
            registry.set_before(name, record.before);
            if confirm.is_none()
                && let Some(definition) = definition
            {
                registry.defined(definition);
            }
        }
        *self.applied() = after;
        self.settle_change(name, &from, &to, confirm.is_none()).await;
        match confirm {
            Some(seconds) => tracing::info!("network {name} changed; taken back in {seconds} s unless confirmed"),
            None => tracing::info!("network {name} changed"),
        }
        self.tell_changed(name).await;
        self.deadlines.send_replace(());
        Ok(confirm)
    }

    async fn do_steps(
        &self,
        name: &NetworkName,
        planned: &mut Planned,
        attempted: &mut Vec<Step>,
    ) -> Result<(), VerbError> {
        let mut dns_port = None;
        for step in std::mem::take(&mut planned.steps) {
            let step = step.with_dns_port(dns_port, &planned.to.addresses);
            tracing::debug!("network {name}: {step}");
            attempted.push(step.clone());
            match self.run_live(&step).await {
                Ok(outcome) => dns_port = dns_port.or(outcome.dns_port),
                Err(cause) => return Err(ApplyError::Step { step: Box::new(step), cause }.into()),
            }
            if let Step::Live(LiveStep::SetFirewall { network, .. }) = step {
                planned.to.firewall = network;
            }
        }
        let host = self.host.observe().await?;
        match change::plan(&planned.from, &planned.to, &host, &planned.shared, None).into_iter().next() {
            None => Ok(()),
            Some(step) => Err(ApplyError::Unverified(Box::new(step)).into()),
        }
    }

    /// Rules that are not as they were left, whoever did that, are made anew with all others.
    async fn run_live(&self, step: &Step) -> Result<Outcome, StepError> {
        match (self.host.run(step).await, step) {
            (Err(error), Step::Live(LiveStep::SetFirewall { network, after, .. })) => {
                tracing::warn!(
                    "cannot change the rules of {} alone, making the whole table anew: {error}",
                    network.bridge
                );
                let mut networks = self.registry().firewalls();
                networks.retain(|other| other.bridge != network.bridge);
                networks.push(network.clone());
                self.host.replace_firewall(&networks, after).await?;
                Ok(Outcome::default())
            }
            (result, _) => result,
        }
    }

    /// Puts what was done on disk: from then on it is so.
    fn keep_change(
        &self,
        name: &NetworkName,
        planned: &Planned,
        record: &Record,
        definition: Option<&Network>,
    ) -> Result<(), VerbError> {
        if let Some(definition) = definition {
            self.save_definition(definition)?;
        }
        let ended = |from: bool, to: bool| from && !to;
        if ended(planned.from.forwarding, planned.to.forwarding)
            || ended(planned.from.forwarding6, planned.to.forwarding6)
        {
            self.hand_forwarding_over(name)?;
        }
        Ok(self.store.save_record(record)?)
    }

    /// Another network that needs the host to route has to undo one day what this one did.
    fn hand_forwarding_over(&self, name: &NetworkName) -> Result<(), VerbError> {
        let heirs = {
            let registry = self.registry();
            let (name, live) = registry.find_live(name.as_str())?;
            registry.hand_over(name, &live.journal)
        };
        for (heir, undo) in heirs {
            self.registry_mut().inherit(&heir, undo);
            self.save_live(&heir, Phase::Active)?;
        }
        Ok(())
    }

    /// Everything as it was before the change that failed.
    async fn abandon(&self, name: &NetworkName, planned: &Planned, attempted: &[Step], before: Before) {
        let forwards = Forwards { before: &planned.before, after: &planned.after };
        let restored = match self.host.observe().await {
            Ok(host) => {
                let Planned { from, to, shared, .. } = planned;
                let steps = change::way_back(from, to, &host, attempted, shared.others, forwards);
                self.force(name, steps).await
            }
            Err(error) => {
                tracing::error!("network {name}: {error}");
                false
            }
        };
        self.restore_definition(name, before.definition, false);
        if !restored {
            tracing::error!("network {name}: not all of the change could be taken back; the next daemon tries again");
            return;
        }
        if let Err(error) = self.save_live(name, Phase::Active) {
            tracing::error!("network {name}: {error}");
        }
    }

    /// Does every step, whatever becomes of the others. True if all were done.
    pub(super) async fn force(&self, name: &NetworkName, steps: Vec<Step>) -> bool {
        let mut all = true;
        for step in steps {
            if let Err(error) = self.run_live(&step).await {
                tracing::error!("network {name}: cannot {step}: {error}");
                all = false;
            }
        }
        all
    }

    /// The definition as it was. `is_new`: the network did not exist at all.
    pub(super) fn restore_definition(&self, name: &NetworkName, before: Definition, is_new: bool) {
        let known = self.registry().find(name.as_str()).ok().and_then(|(_, entry)| entry.definition.clone());
        let result = match before {
            Definition::Untouched => return,
            Definition::Absent => self.store.remove_definition(name).map_err(VerbError::from).map(|()| None),
            Definition::Xml(text) => {
                let saved = self.store.save_definition(name, &text).map_err(VerbError::from);
                saved.and_then(|()| Ok(Some(xml::parse(&text)?)))
            }
        };
        match result {
            Ok(Some(definition)) => self.registry_mut().defined(definition),
            Ok(None) if known.is_some() || is_new => self.registry_mut().undefined(name),
            Ok(None) => {}
            Err(error) => tracing::error!("network {name}: the definition is not what it was: {error}"),
        }
    }

    /// What follows from a change that was made, in either direction.
    async fn settle_change(&self, name: &NetworkName, from: &Desired, to: &Desired, lasting: bool) {
        if let (Ground::Own(from), Ground::Own(to)) = (&from.ground, &to.ground)
            && from.mtu != to.mtu
        {
            let mtu = to.mtu.unwrap_or(DEFAULT_MTU);
            let ports = self.registry_mut().set_port_mtu(name, mtu);
            for port in ports {
                if let Err(error) = self.store.save_port(&port) {
                    tracing::warn!("{error}");
                }
            }
        }
        if lasting && let Err(error) = self.host.drop_strays(name.as_str()).await {
            tracing::error!("network {name}: {error}");
        }
        if let Err(error) = self.sync_forwards().await {
            tracing::error!("network {name}: {error}");
        }
    }

    /// To whoever wants to know: a network is other than it was.
    async fn tell_changed(&self, name: &NetworkName) {
        let network = self.registry().find_live(name.as_str()).ok().map(|(_, live)| live.network.clone());
        if let Some(network) = network {
            self.events.tell(lifecycle(name.as_str(), network.uuid, EventKind::Updated));
            self.tell_hooks(&network, Operation::Updated).await;
        }
    }

    /// The change of the network `key`, or the only one that waits, is there to stay.
    pub async fn confirm(&self, key: Option<&str>) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let (name, before) = self.registry().confirm(key)?;
        // Once this is on disk the daemon that reads it goes on from here.
        self.registry_mut().set_before(&name, Some(Before { deadline: None, ..before.clone() }));
        let result =
            self.save_live(&name, Phase::Active).and_then(|()| self.conclude(&name, before.confirmed.as_deref()));
        if let Err(error) = result {
            self.registry_mut().set_before(&name, Some(before));
            self.save_live(&name, Phase::Active)?;
            return Err(error);
        }
        if let Err(error) = self.host.drop_strays(name.as_str()).await {
            tracing::error!("network {name}: {error}");
        }
        tracing::info!("network {name}: the change is confirmed");
        self.deadlines.send_replace(());
        reply(&self.registry(), &name, Vec::new())
    }

    /// Writes the definition that waited for the change to be confirmed.
    pub(super) fn conclude(&self, name: &NetworkName, confirmed: Option<&str>) -> Result<(), VerbError> {
        if let Some(text) = confirmed {
            let definition = xml::parse(text)?;
            self.save_definition(&definition)?;
            self.registry_mut().defined(definition);
        }
        self.registry_mut().set_before(name, None);
        self.save_live(name, Phase::Active)
    }

    /// Takes back every change whose time is over, and says in how many seconds the next one's is.
    pub async fn expire_changes(&self) -> Option<u64> {
        let _turn = self.turn.lock().await;
        let now = self.host.uptime();
        let due: Vec<NetworkName> = {
            let registry = self.registry();
            let over = |before: &Before| before.deadline.is_some_and(|deadline| deadline.at <= now);
            registry.unconfirmed().filter(|(_, before)| over(before)).map(|(name, _)| name.clone()).collect()
        };
        for name in due {
            tracing::warn!("network {name}: the change was not confirmed in time; taking it back");
            if let Err(error) = self.roll_back(&name).await {
                tracing::error!("network {name}: {error}");
            }
        }
        let registry = self.registry();
        registry.unconfirmed().filter_map(|(_, before)| before.deadline).map(|d| d.at.saturating_sub(now)).min()
    }

    /// Heard whenever [`Verbs::expire_changes`] should be asked again.
    pub fn deadlines(&self) -> tokio::sync::watch::Receiver<()> {
        self.deadlines.subscribe()
    }

    /// From a change that was made to what was before it.
    async fn roll_back(&self, name: &NetworkName) -> Result<(), VerbError> {
        let (live, before) = {
            let registry = self.registry();
            let (_, live) = registry.find_live(name.as_str())?;
            let before =
                registry.before(name).cloned().ok_or_else(|| Refusal::NothingToConfirm(Some(name.to_string())))?;
            (live.clone(), before)
        };
        let host = self.host.observe().await?;
        self.save_live(name, Phase::Changing)?;
        let (restored, steps) = self.rewind(&live, &before, &host, true)?;
        let (from, to) = (live.desired, restored.desired.clone());
        let after = self.registry().with_live(restored.clone()).forwards(&self.host);
        let whole = self.force(name, steps).await;
        {
            let mut registry = self.registry_mut();
            registry.started(restored);
            registry.set_before(name, None);
        }
        *self.applied() = after;
        self.restore_definition(name, before.definition, false);
        if whole {
            self.save_live(name, Phase::Active)?;
        }
        self.settle_change(name, &from, &to, true).await;
        tracing::info!("network {name} is as it was before the change");
        self.tell_changed(name).await;
        Ok(())
    }

    /// The network as it was before a change, and the steps there. Without `unseen` those that the kernel shows.
    pub(super) fn rewind(
        &self,
        live: &Live,
        before: &Before,
        host: &HostState,
        unseen: bool,
    ) -> Result<(Live, Vec<Step>), VerbError> {
        let network = xml::parse(&before.xml)?;
        let registry = self.registry();
        let mut desired = registry.desired(&network)?;
        let from = registry.with_ports(live);
        let dns_port = from.firewall.dns_redirect.as_ref().map(|redirect| redirect.port);
        desired.redirect_dns(dns_port.filter(|_| desired.services.dns.is_some()));
        let restored = Live { network, desired, journal: before.journal.clone() };
        let others = registry.others(&restored.network.name);
        let shared = Shared::of(&live.journal, others);
        let table = self.applied().clone();
        let after = registry.with_live(restored.clone()).forwards(&self.host);
        let forwards = unseen.then_some(Forwards { before: &table, after: &after });
        let steps = change::plan(&from, &restored.desired, host, &shared, forwards);
        Ok((restored, steps))
    }
}

fn definition_of(network: &Network) -> Definition {
    Definition::Xml(xml::write(network))
}

#[cfg(test)]
mod tests;
