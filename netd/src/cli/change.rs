//! The verbs that change networks under their guests: ask the daemon, say it in virsh's words where virsh has them.

use std::path::{Path, PathBuf};

use netd_api::{ChangeReply, Update, UpdateCommand};
use serde_json::json;

use super::{
    Output,
    args::{ConfirmArgs, NetApplyArgs, NetUpdateArgs, UpdateVerb},
    connect::{connect, read_file},
    failure::{About, Failure},
};

pub(super) async fn apply(socket: &Path, args: &NetApplyArgs) -> Result<Output, Failure> {
    let path = args.file.path();
    let failed = |e| Failure::client(format!("Failed to apply network from {}", path.display()), About::Nothing, &e);
    let xml = read_file(&path)?;
    let mut client = connect(socket).await.map_err(failed)?;
    let reply = client.apply_network(xml, args.dry_run, args.confirm).await.map_err(failed)?;
    Ok(Output::new(applied(&reply, &path, args.dry_run), json!(reply)).with_notices(notices(&reply)))
}

fn applied(reply: &ChangeReply, path: &Path, dry_run: bool) -> String {
    if !reply.changed {
        return format!("Network {} is as in {}: nothing to change\n", reply.name, path.display());
    }
    if dry_run {
        return plan(reply);
    }
    format!("Network {} applied from {}\n", reply.name, path.display())
}

/// The plan, step by step, and what becomes of the rules.
fn plan(reply: &ChangeReply) -> String {
    let mut text = format!("Network {} would change:\n", reply.name);
    for step in &reply.steps {
        text.push_str(&format!("  {step}\n"));
    }
    if !reply.rules.is_empty() {
        text.push_str("nftables, table inet netd:\n");
        for rule in &reply.rules {
            text.push_str(&format!("  {rule}\n"));
        }
    }
    text
}

fn notices(reply: &ChangeReply) -> Vec<String> {
    let mut notices = reply.notices.clone();
    if let Some(seconds) = reply.confirm_within {
        let name = &reply.name;
        notices.push(format!("'netd confirm {name}' keeps this; without it, it is taken back in {seconds} s"));
    }
    notices
}

pub(super) async fn confirm(socket: &Path, args: &ConfirmArgs) -> Result<Output, Failure> {
    let network = args.network.clone();
    let about = network.as_deref().map_or(About::Nothing, About::Network);
    let failed = |e| {
        let whose = network.as_deref().map(|name| format!(" of network {name}")).unwrap_or_default();
        Failure::client(format!("Failed to confirm the change{whose}"), about, &e)
    };
    let mut client = connect(socket).await.map_err(failed)?;
    let reply = client.confirm_change(network.clone()).await.map_err(failed)?;
    let text = format!("Change of network {} confirmed\n", reply.network.name);
    Ok(Output::new(text, json!(reply.network)).with_notices(reply.notices))
}

pub(super) async fn update(socket: &Path, args: &NetUpdateArgs) -> Result<Output, Failure> {
    for (flag, given) in [("live", args.live), ("config", args.config)] {
        if args.current && given {
            return Err(Failure::new(format!("Options --current and --{flag} are mutually exclusive")));
        }
    }
    let name = args.network.clone();
    let xml = if args.xml.starts_with('<') { args.xml.clone() } else { read_file(&PathBuf::from(&args.xml))? };
    let failed = |e| Failure::client(format!("Failed to update network {name}"), About::Network(&name), &e);
    let update = Update {
        network: name.clone(),
        command: match args.command {
            UpdateVerb::Modify => UpdateCommand::Modify,
            UpdateVerb::Delete => UpdateCommand::Delete,
            UpdateVerb::AddLast => UpdateCommand::AddLast,
            UpdateVerb::AddFirst => UpdateCommand::AddFirst,
        },
        section: args.section.clone(),
        xml,
        parent_index: args.parent_index,
        live: args.live,
        config: args.config,
    };
    let reply = connect(socket).await.map_err(failed)?.update_network(update).await.map_err(failed)?;
    let affected = match (reply.live, reply.config) {
        (true, true) => "persistent config and live state",
        (true, false) => "live state",
        _ => "persistent config",
    };
    let text = format!("Updated network {} {affected}\n", reply.name);
    Ok(Output::new(text, json!(reply)).with_notices(reply.notices))
}
