//! Guests, pools and filters: there are none here, and that is said in their form.

use crate::{
    error::{Code, Domain, RemoteError},
    networks::{Answer, only},
    xdr::{Reader, Writer},
};

/// The version of the hypervisor: there is none, and clients know 0 for that.
pub(crate) const VERSION: u64 = 0;

/// Every bit of CONNECT_LIST_ALL_DOMAINS.
const LIST_DOMAINS: u32 = 0x3fff;

/// A list of names or ids, of which the client says how many it takes.
pub(crate) fn no_names(args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    args.i32()?;
    ret.count(0);
    Ok(())
}

/// CONNECT_LIST_ALL_DOMAINS.
pub(crate) fn no_domains(args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    args.i32()?;
    // Checkpoints have two more bits, 0x4000 and 0x8000, and no guest has any here.
    only(args.u32()?, LIST_DOMAINS | 0xc000, "virDomainObjListExport")?;
    ret.count(0).count(0);
    Ok(())
}

fn no_domain(detail: String) -> Answer {
    let message = format!("Domain not found: {detail}");
    Err(RemoteError { code: Code::NoDomain, domain: Domain::Qemu, message })
}

/// DOMAIN_LOOKUP_BY_ID.
pub(crate) fn no_domain_of_id(args: &mut Reader<'_>) -> Answer {
    no_domain(format!("no domain with matching id {}", args.i32()?))
}

/// DOMAIN_LOOKUP_BY_NAME.
pub(crate) fn no_domain_of_name(args: &mut Reader<'_>) -> Answer {
    no_domain(format!("no domain with matching name '{}'", args.string()?))
}

/// DOMAIN_LOOKUP_BY_UUID.
pub(crate) fn no_domain_of_uuid(args: &mut Reader<'_>) -> Answer {
    no_domain(format!("no domain with matching uuid '{}'", args.uuid()?))
}
