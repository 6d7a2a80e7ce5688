//! Completion scripts, from the same definitions as the help. Pure: definitions in, text out.
//!
//! What the daemon knows (names of networks, guests, ports) the scripts ask for with the hidden verb `complete` while the
//! user types. Those names are read line by line and quoted, never evaluated: a name may hold what a shell obeys.

use std::fmt::Write;

use clap::{Arg, Command};
use clap_complete::{Shell, generate};

/// The program's name, in the scripts and of the scripts' functions.
const PROGRAM: &str = "netd";

/// A place on the command line where a name belongs.
struct Place {
    /// The verb, `port exec` for one of two words.
    verb: String,
    /// Which of its arguments, from 0.
    position: usize,
    /// What [`super::args::Names`] calls it.
    names: &'static str,
}

/// The script for `shell`, or nothing where there is none.
pub(super) fn script(shell: Shell, mut command: Command) -> Option<String> {
    command.build();
    let mut bytes = Vec::new();
    generate(shell, &mut command, PROGRAM, &mut bytes);
    let generated = String::from_utf8(bytes).ok()?;
    let places = places(&command);
    match shell {
        Shell::Bash => Some(generated + &bash(&command, &places)),
        Shell::Zsh => Some(zsh(&generated)),
        Shell::Fish => Some(generated + &fish(&places)),
        _ => None,
    }
}

/// What the values of an argument are called determines what they are.
fn names_of(argument: &Arg) -> Option<&'static str> {
    names_called(argument.get_value_names()?.first()?)
}

fn names_called(value: &str) -> Option<&'static str> {
    match value {
        "NETWORK" => Some("networks"),
        "GUEST" | "GUEST[:PORT]" => Some("guests"),
        "INTERFACE" | "INTERFACE|GUEST" => Some("ports"),
        _ => None,
    }
}

fn verbs(command: &Command) -> impl Iterator<Item = (String, &Command)> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help").flat_map(|verb| {
        let name = verb.get_name().to_owned();
        let mut found: Vec<_> = verb
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
            .map(|inner| (format!("{name} {}", inner.get_name()), inner))
            .collect();
        if found.is_empty() {
            found.push((name, verb));
        }
        found
    })
}

fn places(command: &Command) -> Vec<Place> {
    let of_verb = |(verb, definition): (String, &Command)| -> Vec<Place> {
        let names = definition.get_positionals().enumerate();
        names
            .filter_map(|(position, argument)| Some(Place { verb: verb.clone(), position, names: names_of(argument)? }))
            .collect()
    };
    verbs(command).flat_map(of_verb).collect()
}

/// Every option that takes a value, as it is written, and what its values are the names of.
fn options(command: &Command) -> Vec<(String, Option<&'static str>)> {
    let mut found: Vec<(String, Option<&'static str>)> = Vec::new();
    let all = std::iter::once(command).chain(verbs(command).map(|(_, verb)| verb));
    for argument in all.flat_map(Command::get_opts) {
        let long = argument.get_long().map(|long| format!("--{long}"));
        let short = argument.get_short().map(|short| format!("-{short}"));
        for written in long.into_iter().chain(short) {
            if found.iter().all(|(known, _)| *known != written) {
                found.push((written, names_of(argument)));
            }
        }
    }
    found
}

/// The generated function, and after it what it left open.
fn bash(command: &Command, places: &[Place]) -> String {
    let options = options(command);
    let with_value: Vec<&str> = options.iter().map(|(written, _)| written.as_str()).collect();
    let double: Vec<&str> =
        command.get_subcommands().filter(|verb| verb.has_subcommands()).map(Command::get_name).collect();
    let mut cases = String::new();
    for (written, names) in options.iter().filter_map(|(written, names)| Some((written, (*names)?))) {
        // writing to a String cannot fail, here and below
        let _ = writeln!(cases, "        *:{written}) what={names} ;;");
    }
    let _ = writeln!(cases, "        *:{}) return ;;", with_value.join("|*:"));
    for Place { verb, position, names } in places {
        let _ = writeln!(cases, "        '{verb}:{position}':*) what={names} ;;");
    }
    format!(
        r#"
# Names that the daemon knows.
_netd_with_names() {{
    _netd "$@"
    local cur="${{COMP_WORDS[COMP_CWORD]}}" previous="" verb="" at=0 i name what
    [[ $cur == -* || $cur == = ]] && return
    for ((i = 1; i < COMP_CWORD; i++)); do
        previous=${{COMP_WORDS[i]}}
        case $previous in
        {with_value}) ((i + 1 < COMP_CWORD)) && {{ ((i++)); previous=""; }} ;;
        -*) previous="" ;;
        *) case $verb in
            ''|{double}) verb="${{verb:+$verb }}$previous" ;;
            *) ((at++)) ;;
            esac
            previous="" ;;
        esac
    done
    case "$verb:$at:$previous" in
{cases}        *) return ;;
    esac
    COMPREPLY=()
    while IFS= read -r name; do
        [[ $name == "$cur"* ]] && COMPREPLY+=("$(printf %q "$name")")
    done < <("${{COMP_WORDS[0]}}" complete "$what" 2>/dev/null)
}}
complete -F _netd_with_names -o nosort -o bashdefault -o default netd
"#,
        with_value = with_value.join("|"),
        double = if double.is_empty() { "''".to_owned() } else { double.join("|") },
        cases = cases.replace("':*)", ":'*)"),
    )
}

/// The generated script says `_default` (files) wherever it knows nothing better.
fn zsh(generated: &str) -> String {
    let mut text = String::new();
    for line in generated.lines() {
        // ':network -- what it is:_default' for an argument, '--network=[what it is]:NETWORK:_default' for an option
        let body = line.trim_start().trim_start_matches('\'').trim_start_matches('*');
        let called = match body.strip_suffix(":_default' \\") {
            Some(rest) if rest.contains("=[") => rest.rsplit(':').next(),
            Some(rest) => rest.trim_start_matches(':').split(" -- ").next(),
            None => None,
        };
        let names = called.and_then(|called| names_called(&zsh_argument(called)));
        match names {
            Some(names) => text.push_str(&line.replace(":_default'", &format!(":_netd_names {names}'"))),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    let hook = "
# Names that the daemon knows.
(( $+functions[_netd_names] )) ||
_netd_names() {
    local -a names
    names=(${(f)\"$(_call_program names netd complete $1 2>/dev/null)\"})
    compadd -a names
}
";
    // Before the end, where the script decides whether it is being run or only loaded.
    match text.rfind("\nif [ \"$funcstack[1]\"") {
        Some(end) => format!("{}{hook}{}", &text[..end], &text[end..]),
        None => text + hook,
    }
}

/// In zsh's script an argument goes by its field's name.
fn zsh_argument(called: &str) -> String {
    match called {
        "port" => "INTERFACE|GUEST".to_owned(),
        "targets" => "GUEST[:PORT]".to_owned(),
        other => other.to_uppercase(),
    }
}

/// fish asks every line that applies: a verb's names are offered wherever one of its arguments may stand.
fn fish(places: &[Place]) -> String {
    let mut text = "\n# Names that the daemon knows.\n".to_owned();
    for Place { verb, position: _, names } in places {
        let seen = verb
            .split(' ')
            .map(|word| format!("__fish_seen_subcommand_from {word}"))
            .collect::<Vec<_>>()
            .join("; and ");
        let _ = writeln!(text, "complete -c netd -n '{seen}' -f -a '(netd complete {names} 2>/dev/null)'");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{super::args::Cli, *};

    #[test]
    fn every_place_for_a_name_is_known() {
        let command = Cli::command();
        let found: Vec<String> =
            places(&command).iter().map(|p| format!("{}:{}={}", p.verb, p.position, p.names)).collect();
        for wanted in [
            "net-start:0=networks",
            "domifaddr:0=guests",
            "domifaddr:1=ports",
            "port-info:0=ports",
            "port exec:0=networks",
            "forward-add:0=networks",
            "forward-add:2=guests",
        ] {
            assert!(found.iter().any(|place| place == wanted), "{wanted}: {found:?}");
        }
    }

    #[test]
    fn hidden_verbs_are_not_completed() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell, Cli::command()).unwrap();
            assert!(script.contains("net-dhcp-leases"), "{shell}");
            assert!(!script.contains("netd__man"), "{shell}");
        }
        assert!(script(Shell::Elvish, Cli::command()).is_none());
    }
}
