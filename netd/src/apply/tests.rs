//! Failing at every step: the host is as it was found, whichever step it is and whatever the network.

use super::{
    fake::{Fake, Trouble},
    *,
};
use crate::plan::tests::{TOPOLOGIES, desired_of};

async fn start(fake: &Fake, desired: &Desired) -> Result<Vec<Step>, Failed> {
    let host = fake.world().host.clone();
    let steps = plan::plan(desired, &host, InPlace::default());
    fake.world().calls = 0;
    apply(fake, desired, steps, Others::default()).await
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_the_host_as_found() {
    for forwarding in [false, true] {
        for (name, text) in TOPOLOGIES {
            let desired = desired_of(text);
            let calls = {
                let fake = Fake::new();
                fake.world().host.forwarding = forwarding;
                start(&fake, &desired).await.unwrap();
                fake.world().calls
            };
            for at in 1..=calls {
                let fake = Fake::new();
                fake.world().host.forwarding = forwarding;
                let found = fake.traces();
                fake.world().trouble = Some(Trouble::Fail(at));
                let failed = start(&fake, &desired).await.unwrap_err();
                assert!(failed.left.is_empty());
                assert_eq!(fake.traces(), found, "{name}, failing at call {at}: {}", failed.error);
            }
        }
    }
}

#[tokio::test]
async fn undoing_all_steps_leaves_the_host_as_found() {
    for (name, text) in TOPOLOGIES {
        let fake = Fake::new();
        let found = fake.traces();
        let done = start(&fake, &desired_of(text)).await.unwrap();
        assert_ne!(fake.traces(), found);
        let undos = plan::teardown(&plan::unwind(&done), Others::default());
        assert!(take_back(&fake, &undos).await.is_empty());
        assert_eq!(fake.traces(), found, "{name}");
    }
}

#[tokio::test]
async fn taking_back_goes_on_after_a_failure_and_can_be_done_again() {
    let fake = Fake::new();
    let found = fake.traces();
    let done = start(&fake, &desired_of(TOPOLOGIES[0].1)).await.unwrap();
    let undos = plan::teardown(&plan::unwind(&done), Others::default());
    let next = fake.world().calls + 1;
    fake.world().trouble = Some(Trouble::Fail(next));
    let left = take_back(&fake, &undos).await;
    assert_eq!(left.len(), 1);
    assert_eq!(*left[0].undo, undos[0]);
    assert!(take_back(&fake, &undos).await.is_empty());
    assert_eq!(fake.traces(), found);
}

#[tokio::test]
async fn dns_on_another_port_is_redirected_by_the_rules() {
    let fake = Fake::new();
    fake.world().dns_port = 5399;
    start(&fake, &desired_of(TOPOLOGIES[0].1)).await.unwrap();
    let table = fake.world().table.clone().unwrap();
    let redirect = table["virbr0"].dns_redirect.clone().unwrap();
    assert_eq!(redirect.port, 5399);
    assert_eq!(redirect.addresses, ["192.168.122.1".parse::<std::net::Ipv4Addr>().unwrap()]);
}

/// A host on which another program sets every bridge down as soon as it is up.
struct Meddled(Fake);

impl Executor for Meddled {
    async fn observe(&self) -> Result<HostState, ObserveError> {
        for link in &mut self.0.world().host.links {
            link.up = false;
        }
        self.0.observe().await
    }
    async fn observe_around(&self, focus: &Focus) -> Result<HostState, ObserveError> {
        Ok(self.observe().await?.around(focus))
    }
    async fn run(&self, step: &Step) -> Result<Outcome, StepError> {
        self.0.run(step).await
    }
    async fn undo(&self, undo: &Undo) -> Result<(), StepError> {
        self.0.undo(undo).await
    }
}

#[tokio::test]
async fn work_that_did_not_last_is_noticed_and_taken_back() {
    let fake = Fake::new();
    let found = fake.traces();
    let desired = desired_of(TOPOLOGIES[0].1);
    let steps = plan::plan(&desired, &fake.world().host.clone(), InPlace::default());
    let failed = apply(&Meddled(fake.clone()), &desired, steps, Others::default()).await.unwrap_err();
    assert!(matches!(failed.error, ApplyError::Unverified(_)), "{}", failed.error);
    assert_eq!(fake.traces(), found);
}
