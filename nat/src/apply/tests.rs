//! EDGE: errors of real `nft` runs, and what is made of words this machine's kernel does not say.

use super::*;

fn isolated(bridge: &str) -> Network {
    Network {
        bridge: bridge.to_owned(),
        mode: Mode::Isolated,
        subnets: Vec::new(),
        dns_redirect: None,
        policy: crate::Policy::default(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn no_nft_program_anywhere_is_an_error_that_names_the_package() {
    let programs = ["/nonexistent/nft", "nft-that-nobody-has"];
    let error = runtime().block_on(run_any(&programs, &["-j", "-f", "-"], &ruleset::delete_table())).unwrap_err();
    assert!(matches!(error, Error::NoNft), "{error:?}");
    assert!(error.to_string().contains("install the package nftables"), "{error}");
}

#[test]
fn the_next_place_is_tried_where_the_first_has_no_program() {
    let programs = ["/nonexistent/nft", "/bin/false"];
    let error = runtime().block_on(run_any(&programs, &["-j", "-f", "-"], &ruleset::delete_table())).unwrap_err();
    assert!(matches!(&error, Error::Refused { stderr } if stderr == "exit status: 1"), "{error:?}");
}

#[test]
fn without_cap_net_admin_the_error_says_so() {
    let error = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        const CAP_NET_ADMIN: libc::c_ulong = 12;
        // SAFETY: PR_CAPBSET_DROP takes one integer and changes this thread's credentials only.
        assert_eq!(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) }, 0);
        let table = crate::Table::open().unwrap();
        runtime().block_on(table.add(&isolated("virbr0"))).unwrap_err()
    });
    let error = error.join().unwrap();
    assert!(matches!(error, Error::Permission { .. }), "{error:?}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn what_the_kernel_says_is_told_apart() {
    let classify = |stderr: &str| super::classify(stderr, "exit status: 1".to_owned());
    let missing = "internal:0:0-0: Error: Could not process rule: No such file or directory\n\n\n";
    assert!(
        matches!(classify(missing), Error::Kernel { stderr } if stderr == "Could not process rule: No such file or directory")
    );
    let no_nf_tables = "netlink: Error: cache initialization failed: Protocol not supported\n";
    assert!(matches!(classify(no_nf_tables), Error::Kernel { .. }));
    let user = "Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation not permitted\n";
    assert!(matches!(classify(user), Error::Permission { .. }));
    let other = "internal:0:0-0: Error: Could not process rule: Device or resource busy\n";
    assert!(
        matches!(classify(other), Error::Refused { stderr } if stderr == "Could not process rule: Device or resource busy")
    );
    assert!(matches!(classify(""), Error::Refused { stderr } if stderr == "exit status: 1"));
}

#[test]
fn a_name_that_means_something_to_nft_never_reaches_it() {
    for name in ["", "virbr*", "@set", "a/b", "a b", "sixteen-letters-", "brücke", "a\"b", "$x"] {
        assert!(matches!(check(&isolated(name)), Err(Error::Interface(_))), "{name:?}");
        let routed = Network { mode: Mode::Route { dev: Some(name.to_owned()) }, ..isolated("virbr0") };
        assert!(matches!(check(&routed), Err(Error::Interface(_))), "dev {name:?}");
    }
    for name in ["virbr0", "0", "br-lan", "eth0.100", "fifteen_letters"] {
        assert!(check(&isolated(name)).is_ok(), "{name:?}");
    }
}
