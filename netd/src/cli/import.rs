//! EDGE: `netd import`: what was found is carried out network by network, and each step said when it is done.
//!
//! ```text
//! define ──► mark ──► leases                                       a network that does not run, or is not taken over
//! define ──► mark ──► dnsmasq ends ──► leases, adopt ──► libvirt's rules and marks go
//!   ◄── back, in reverse, if one of these fails ──┘        what stays of these is only told
//! ```

use std::{
    io::{self, Write},
    path::Path,
};

use netd_api::{Client, Lease, Network};
use serde_json::{Value, json};

use super::{
    args::{ImportArgs, OutputForm},
    connect::connect,
    failure::{About, Failure},
};
use crate::{
    import::{self, Import, dnsmasq::Dnsmasq, files, firewall::Rules},
    registry::shipped,
    xml,
};

/// What was said, for people as it happens, for programs at the end.
struct Journal {
    form: OutputForm,
    networks: Vec<Value>,
    complete: bool,
}

/// How to take a step back.
enum Undo {
    /// The definition is new.
    Undefine(String),
    /// The shipped definition made way.
    DefineAgain { xml: String, autostart: bool },
    /// libvirt's dnsmasq was ended.
    Serve(Dnsmasq),
}

/// Carries out an import. True if nothing had to be left out.
pub(super) async fn run(socket: &Path, args: &ImportArgs, form: OutputForm) -> Result<bool, Failure> {
    let root = args.root.as_path();
    let found = files::read(root).map_err(|cause| {
        Failure::new("Failed to read libvirt's networks").because(format!("{}: {cause}", root.display()))
    })?;
    if args.adopt && !args.dry_run && !nix::unistd::geteuid().is_root() {
        return Err(Failure::new("Failed to take over libvirt's networks")
            .because("--adopt ends libvirt's dnsmasq and removes its firewall rules: run it as root"));
    }
    let (imports, left_out) = import::plan(&found);
    let mut journal = Journal { form, networks: Vec::new(), complete: true };
    if imports.is_empty() && left_out.is_empty() {
        journal.line(&format!("libvirt has no networks below {}", root.display()));
    }
    for left in &left_out {
        journal.error(&format!("{} is not imported: {}", left.path.display(), left.why));
        journal.networks.push(json!({ "file": left.path, "error": left.why }));
    }
    let failed = |error| Failure::client("Failed to import networks", About::Nothing, &error);
    let mut client = match connect(socket).await {
        Ok(client) => Some(client),
        // To say what there is no daemon is needed.
        Err(_) if args.dry_run => None,
        Err(error) => return Err(failed(error)),
    };
    for mut import in imports {
        let known = match &mut client {
            Some(client) => client.list_networks().await.map_err(failed)?.networks,
            None => Vec::new(),
        };
        let mut one = One { args, root, known, steps: Vec::new(), undo: Vec::new(), form };
        one.say(&format!("Network {}", import.name));
        let result = one.import(&mut import, client.as_mut()).await;
        if let Err(why) = &result {
            if let Some(client) = &mut client {
                one.take_back(client).await;
            }
            journal.error(&format!("network {} is not imported: {why}", import.name));
        }
        for note in &import.notes {
            one.say(&format!("  note: {note}"));
        }
        journal.networks.push(json!({ "name": import.name.as_str(), "steps": one.steps, "error": result.err() }));
    }
    journal.end();
    Ok(journal.complete)
}

impl Journal {
    fn line(&self, line: &str) {
        if self.form == OutputForm::Text {
            // whoever does not read on has seen enough
            let _: io::Result<()> = writeln!(io::stdout(), "{line}");
        }
    }

    fn error(&mut self, line: &str) {
        self.complete = false;
        let _: io::Result<()> = writeln!(io::stderr(), "error: {line}");
    }

    fn end(&self) {
        if self.form == OutputForm::Json {
            let _: io::Result<()> = writeln!(io::stdout(), "{:#}", json!(self.networks));
        }
    }
}

/// The import of one network.
struct One<'a> {
    args: &'a ImportArgs,
    root: &'a Path,
    /// What netd has.
    known: Vec<Network>,
    steps: Vec<String>,
    undo: Vec<Undo>,
    form: OutputForm,
}

impl One<'_> {
    fn say(&mut self, line: &str) {
        if self.form == OutputForm::Text {
            let _: io::Result<()> = writeln!(io::stdout(), "{line}");
        }
        self.steps.push(line.trim_start().to_owned());
    }

    async fn import(&mut self, import: &mut Import, mut client: Option<&mut Client>) -> Result<(), String> {
        let known = self.known.iter().find(|network| network.name == import.name.as_str()).cloned();
        if known.as_ref().is_some_and(|network| network.active) {
            import.notes.push("netd runs it already: nothing is changed".into());
            return Ok(());
        }
        self.define(import, known, client.as_deref_mut()).await?;
        // Where guests are on the host's own bridge or interface libvirt runs nothing that could be taken over.
        let runs = import.live.as_ref().is_some_and(|live| live.network.forward.has_own_bridge());
        if self.args.adopt && runs {
            self.adopt(import, client).await?;
        } else {
            self.import_leases(import, client).await?;
            self.remark(import);
        }
        Ok(())
    }

    async fn define(
        &mut self,
        import: &mut Import,
        known: Option<Network>,
        mut client: Option<&mut Client>,
    ) -> Result<(), String> {
        let Some(definition) = import.definition.clone() else { return Ok(()) };
        let name = import.name.to_string();
        if let Some(known) = known {
            if known.uuid == definition.uuid.to_string() {
                import.notes.push("it is defined already: the definition that netd has stays".into());
                return Ok(());
            }
            let old = match client.as_deref_mut() {
                Some(client) => client.dump_xml(&name, true).await.map_err(|error| error.to_string())?.xml,
                None => String::new(),
            };
            if !xml::parse(&old).is_ok_and(|old| shipped::is_unchanged(&old)) {
                return Err(format!(
                    "netd has another network of that name, with UUID {}: 'netd net-undefine {name}' removes it",
                    known.uuid
                ));
            }
            if let Some(client) = client.as_deref_mut().filter(|_| !self.args.dry_run) {
                client.undefine_network(&name).await.map_err(|error| error.to_string())?;
                self.undo.push(Undo::DefineAgain { xml: old, autostart: known.autostart });
            }
            self.did("the definition that netd ships is removed", "the definition that netd ships would be removed");
        }
        if let Some(client) = client.as_deref_mut().filter(|_| !self.args.dry_run) {
            client.define_network(xml::write(&definition)).await.map_err(|error| error.to_string())?;
            self.undo.push(Undo::Undefine(name.clone()));
        }
        self.did("defined", "would be defined");
        if import.autostart {
            if let Some(client) = client.filter(|_| !self.args.dry_run) {
                client.set_autostart(&name, true).await.map_err(|error| error.to_string())?;
            }
            self.did("marked as autostarted", "would be marked as autostarted");
        }
        Ok(())
    }

    async fn import_leases(&mut self, import: &Import, client: Option<&mut Client>) -> Result<(), String> {
        if import.leases.is_empty() || import.definition.is_none() {
            return Ok(());
        }
        let mut count = import.leases.len();
        if let Some(client) = client.filter(|_| !self.args.dry_run) {
            let reply = client.import_leases(import.name.as_str(), import.leases.clone()).await;
            count = reply.map_err(|error| error.to_string())?.imported as usize;
        }
        self.did(&format!("{count} leases imported"), &format!("{count} leases would be imported"));
        Ok(())
    }

    fn remark(&self, import: &mut Import) {
        if import.live.is_some() {
            import.notes.push("libvirt runs it: --adopt takes it over as it runs, with its guests".into());
        }
        if import.live.is_none() && import.autostart {
            import.notes.push(format!(
                "libvirt starts it too: 'virsh net-autostart {} --disable' leaves that to netd",
                import.name
            ));
        }
    }

    async fn adopt(&mut self, import: &mut Import, client: Option<&mut Client>) -> Result<(), String> {
        let Some(live) = import.live.clone() else { return Ok(()) };
        let name = import.name.to_string();
        let bridge = live.network.bridge.name.as_ref().map(ToString::to_string).unwrap_or_default();
        let taps = import.taps(&files::bridge_ports(&bridge));
        let subnets: Vec<_> = live.network.subnets.iter().map(|subnet| subnet.address).collect();
        let rules = Rules::find(&bridge, &subnets);
        let dnsmasq = Dnsmasq::find(self.root, &name);
        if let Some(dnsmasq) = &dnsmasq {
            if !self.args.dry_run {
                dnsmasq.end().map_err(|cause| format!("libvirt's dnsmasq (process {}): {cause}", dnsmasq.pid()))?;
                self.undo.push(Undo::Serve(dnsmasq.clone()));
            }
            let which = format!("libvirt's dnsmasq (process {})", dnsmasq.pid());
            self.did(&format!("{which} ended"), &format!("{which} would be ended"));
        }
        let with = match taps.as_slice() {
            [] => String::new(),
            taps => {
                let named = |tap: &netd_api::AdoptedPort| match &tap.guest {
                    Some(guest) => format!("{} of {guest}", tap.interface),
                    None => tap.interface.clone(),
                };
                format!(" with {}", taps.iter().map(named).collect::<Vec<_>>().join(", "))
            }
        };
        if let Some(client) = client.filter(|_| !self.args.dry_run) {
            // Written down until dnsmasq had ended.
            let leases = self.last_leases(import)?;
            let count = leases.len();
            let adopted = client.adopt_network(xml::write(&live.network), taps, leases).await;
            adopted.map_err(|error| error.to_string())?;
            // From here on netd serves: nothing is taken back any more.
            self.undo.clear();
            self.did(&format!("bridge {bridge} taken over{with}; {count} leases"), "");
            self.leave_libvirt(import, &rules);
        } else {
            let count = import.leases.len();
            self.did("", &format!("bridge {bridge} would be taken over{with}; {count} leases"));
            self.did("", &format!("libvirt's firewall rules for {bridge} would be removed: {}", rules.count()));
            self.did("", "libvirt would hold it for inactive and start it no more");
        }
        Ok(())
    }

    fn last_leases(&self, import: &mut Import) -> Result<Vec<Lease>, String> {
        let found = files::read(self.root).map_err(|cause| cause.to_string())?;
        let notes = std::mem::take(&mut import.notes);
        import.read_leases(&found);
        // They were said of the first reading.
        import.notes = notes;
        Ok(import.leases.clone())
    }

    /// What remains of libvirt's for the network goes. Where that fails guests are served all the same.
    fn leave_libvirt(&mut self, import: &mut Import, rules: &Rules) {
        match rules.remove() {
            Ok(()) if rules.count() == 0 => {}
            Ok(()) => self.did(&format!("libvirt's firewall rules removed: {}", rules.count()), ""),
            Err(why) => import.notes.push(format!("libvirt's firewall rules stay, which cuts nobody: {why}")),
        }
        match files::disown(self.root, import.name.as_str()) {
            Ok(()) => self.did("libvirt starts it no more", ""),
            Err(cause) => import.notes.push(format!("libvirt may start it again: {cause}")),
        }
        if let Some(pid) = files::pid(self.root, "driver").filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            import.notes.push(format!(
                "libvirt's daemon (process {pid}) still believes that it runs the network: restart it, and do not \
                 'virsh net-destroy {}' before",
                import.name
            ));
        }
    }

    fn did(&mut self, done: &str, planned: &str) {
        let line = if self.args.dry_run { planned } else { done };
        if !line.is_empty() {
            self.say(&format!("  {line}"));
        }
    }

    async fn take_back(&mut self, client: &mut Client) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            let (what, result) = match undo {
                Undo::Undefine(name) => {
                    let result = client.undefine_network(&name).await.map(drop).map_err(|error| error.to_string());
                    ("definition removed again".to_owned(), result)
                }
                Undo::DefineAgain { xml, autostart } => {
                    ("the definition that netd ships is back".to_owned(), define_again(client, xml, autostart).await)
                }
                Undo::Serve(dnsmasq) => {
                    let result = dnsmasq.start_again().map_err(|cause| cause.to_string());
                    ("libvirt's dnsmasq started again".to_owned(), result)
                }
            };
            match result {
                Ok(()) => self.say(&format!("  {what}")),
                Err(why) => self.say(&format!("  failed: {what}: {why}")),
            }
        }
    }
}

async fn define_again(client: &mut Client, xml: String, autostart: bool) -> Result<(), String> {
    let reply = client.define_network(xml).await.map_err(|error| error.to_string())?;
    client.set_autostart(&reply.network.name, autostart).await.map(drop).map_err(|error| error.to_string())
}
