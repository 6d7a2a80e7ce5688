//! What the guest's CPUs say about themselves: KVM's offer with the topology, the identity and our taste put in.
//!
//! Pure: entries in, entries out. One socket, one thread per core, APIC id = CPU number. Leaves and bits are those of
//! Intel SDM volume 2A "CPUID" and AMD APM volume 3 appendix E.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_msr_entry};

mod leaf {
    pub(super) const FEATURES: u32 = 1;
    pub(super) const CACHES: u32 = 4;
    pub(super) const TOPOLOGY: u32 = 0xb;
    pub(super) const TOPOLOGY_V2: u32 = 0x1f;
    pub(super) const HYPERVISOR: u32 = 0x4000_0000;
    pub(super) const EXTENDED_FEATURES: u32 = 0x8000_0001;
    pub(super) const SIZES: u32 = 0x8000_0008;
    pub(super) const SVM: u32 = 0x8000_000a;
    pub(super) const AMD_CACHES: u32 = 0x8000_001d;
    pub(super) const AMD_TOPOLOGY: u32 = 0x8000_001e;
}

mod features {
    pub(super) const ECX_VMX: u32 = 1 << 5;
    pub(super) const ECX_X2APIC: u32 = 1 << 21;
    pub(super) const ECX_TSC_DEADLINE: u32 = 1 << 24;
    pub(super) const ECX_HYPERVISOR: u32 = 1 << 31;
    pub(super) const EDX_HYPER_THREADING: u32 = 1 << 28;
    pub(super) const EXTENDED_ECX_CMP_LEGACY: u32 = 1 << 1;
    pub(super) const EXTENDED_ECX_SVM: u32 = 1 << 2;
}

const IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRINGS: u64 = 1;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on (bit 11), default type write-back (6): all memory is cached, as firmware leaves it.
const MTRR_ON_WRITE_BACK: u64 = (1 << 11) | 6;

/// The model-specific registers firmware would have set.
pub(super) fn msrs() -> Vec<kvm_msr_entry> {
    [(IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRINGS), (IA32_MTRR_DEF_TYPE, MTRR_ON_WRITE_BACK)]
        .map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() })
        .to_vec()
}

/// How many bits of physical address the CPU has; 36, the least of any x86-64, if it does not say.
pub(super) fn physical_address_bits(supported: &[kvm_cpuid_entry2]) -> u32 {
    let sizes = supported.iter().find(|entry| entry.function == leaf::SIZES);
    sizes.map(|entry| entry.eax & 0xff).filter(|bits| *bits != 0).unwrap_or(36)
}

/// The CPUID entries of CPU `cpu` of `cpus`, from what KVM supports.
///
/// Nested virtualisation (VMX, SVM) is taken out: it is a large surface that nobody has asked for.
pub(super) fn entries(
    supported: &[kvm_cpuid_entry2],
    cpu: u8,
    cpus: u8,
    tsc_deadline_timer: bool,
) -> Vec<kvm_cpuid_entry2> {
    let topology = Topology { apic_id: cpu.into(), cpus: cpus.into() };
    let computed =
        |entry: &&kvm_cpuid_entry2| !matches!(entry.function, leaf::TOPOLOGY | leaf::TOPOLOGY_V2 | leaf::SVM);
    let mut entries: Vec<_> = supported.iter().filter(computed).copied().collect();
    for entry in &mut entries {
        adjust(entry, &topology, tsc_deadline_timer);
    }
    let highest = supported.iter().map(|entry| entry.function).filter(|f| *f < leaf::HYPERVISOR).max();
    for function in [leaf::TOPOLOGY, leaf::TOPOLOGY_V2] {
        if highest >= Some(function) {
            entries.extend(topology.levels(function));
        }
    }
    entries
}

fn adjust(entry: &mut kvm_cpuid_entry2, topology: &Topology, tsc_deadline_timer: bool) {
    match entry.function {
        leaf::FEATURES => {
            entry.ebx = (entry.ebx & 0x0000_ffff) | topology.apic_id << 24 | topology.ids() << 16;
            entry.ecx |= features::ECX_X2APIC | features::ECX_HYPERVISOR;
            entry.ecx &= !features::ECX_VMX;
            set(&mut entry.ecx, features::ECX_TSC_DEADLINE, tsc_deadline_timer);
            set(&mut entry.edx, features::EDX_HYPER_THREADING, topology.cpus > 1);
        }
        // EAX 31-26: cores of the package less one; 25-14: threads sharing this cache less one. Each core its own
        // L1 and L2, the L3 for all.
        leaf::CACHES if entry.eax & 0x1f != 0 => {
            entry.eax = (entry.eax & 0x3fff) | (topology.ids() - 1) << 26 | topology.sharing(entry.eax) << 14;
        }
        leaf::EXTENDED_FEATURES => {
            entry.ecx &= !features::EXTENDED_ECX_SVM;
            let cores_of_amd = topology.cpus > 1 && is_amd_layout(entry);
            set(&mut entry.ecx, features::EXTENDED_ECX_CMP_LEGACY, cores_of_amd);
        }
        // ECX 15-12: width of the core part of the APIC id; 7-0: cores less one.
        leaf::SIZES => entry.ecx = (entry.ecx & !0xf0ff) | topology.shift() << 12 | (topology.cpus - 1),
        leaf::AMD_CACHES if entry.eax & 0x1f != 0 => {
            entry.eax = (entry.eax & 0x3fff) | topology.sharing(entry.eax) << 14;
        }
        leaf::AMD_TOPOLOGY => (entry.eax, entry.ebx, entry.ecx) = (topology.apic_id, topology.apic_id, 0),
        _ => {}
    }
}

/// AMD numbers its extended features' EDX like leaf 1's; Intel keeps the low bits zero.
fn is_amd_layout(extended: &kvm_cpuid_entry2) -> bool {
    extended.edx & 1 != 0
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on { *register |= bit } else { *register &= !bit }
}

struct Topology {
    apic_id: u32,
    cpus: u32,
}

impl Topology {
    /// Bits of APIC id that number the cores.
    fn shift(&self) -> u32 {
        self.cpus.next_power_of_two().trailing_zeros()
    }

    /// APIC ids the package spans: where leaves want a count of ids, not of CPUs.
    fn ids(&self) -> u32 {
        1 << self.shift()
    }

    /// Threads, less one, that share the cache described by `eax` (its level is in bits 7-5).
    fn sharing(&self, eax: u32) -> u32 {
        if (eax >> 5) & 7 >= 3 { self.ids() - 1 } else { 0 }
    }

    /// Leaves 0xb and 0x1f: the thread level, the core level, the end.
    fn levels(&self, function: u32) -> [kvm_cpuid_entry2; 3] {
        const THREAD: u32 = 1;
        const CORE: u32 = 2;
        let level = |index, kind: u32, shift, count| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: count,
            ecx: index | kind << 8,
            edx: self.apic_id,
            ..Default::default()
        };
        [level(0, THREAD, 0, 1), level(1, CORE, self.shift(), self.cpus), level(2, 0, 0, 0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
    }

    /// A small offer as an Intel host would make it, with another CPU's identity in it.
    fn offer() -> Vec<kvm_cpuid_entry2> {
        vec![
            entry(0, 0, [0x1f, 0, 0, 0]),
            entry(1, 0, [0x906ea, 0x0510_0800, features::ECX_VMX, 0x1]),
            entry(4, 0, [0x1c00_4121, 0, 0, 0]),
            entry(4, 3, [0x1c03_c163, 0, 0, 0]),
            entry(0xb, 0, [9, 9, 9, 9]),
            entry(0x1f, 0, [9, 9, 9, 9]),
            entry(0x4000_0001, 0, [0x0100_000b, 0, 0, 0]),
            entry(0x8000_0001, 0, [0, 0, features::EXTENDED_ECX_SVM, 1]),
            entry(0x8000_0008, 0, [0x3027, 0, 0x7007, 0]),
        ]
    }

    fn get(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|e| (e.function, e.index) == (function, index)).unwrap()
    }

    #[test]
    fn each_cpu_knows_its_apic_id_in_every_leaf() {
        for cpu in 0..6_u8 {
            let entries = entries(&offer(), cpu, 6, true);
            assert_eq!(get(&entries, 1, 0).ebx >> 24, u32::from(cpu));
            for index in 0..3 {
                assert_eq!(get(&entries, 0xb, index).edx, u32::from(cpu));
                assert_eq!(get(&entries, 0x1f, index).edx, u32::from(cpu));
            }
        }
    }

    #[test]
    fn six_cores_span_eight_apic_ids() {
        let entries = entries(&offer(), 0, 6, true);
        assert_eq!((get(&entries, 1, 0).ebx >> 16) & 0xff, 8);
        let core = get(&entries, 0xb, 1);
        assert_eq!((core.eax, core.ebx, core.ecx), (3, 6, 0x201));
        assert_eq!(get(&entries, 0x8000_0008, 0).ecx, 0x3005);
        // L1 belongs to one thread, L3 to all eight ids; both say eight core ids.
        assert_eq!(get(&entries, 4, 0).eax >> 14, 7 << 12);
        assert_eq!(get(&entries, 4, 3).eax >> 14, 7 << 12 | 7);
    }

    #[test]
    fn one_cpu_is_not_hyper_threaded() {
        let entries = entries(&offer(), 0, 1, true);
        assert_eq!(get(&entries, 1, 0).edx & features::EDX_HYPER_THREADING, 0);
        assert_eq!(get(&entries, 0xb, 1).ebx, 1);
    }

    #[test]
    fn the_guest_sees_a_hypervisor_and_no_nested_virtualisation() {
        let entries = entries(&offer(), 0, 2, false);
        let features = get(&entries, 1, 0).ecx;
        assert_ne!(features & features::ECX_HYPERVISOR, 0);
        assert_eq!(features & (features::ECX_VMX | features::ECX_TSC_DEADLINE), 0);
        assert_eq!(get(&entries, 0x8000_0001, 0).ecx & features::EXTENDED_ECX_SVM, 0);
        assert_eq!(get(&entries, 0x4000_0001, 0).eax, 0x0100_000b);
    }

    #[test]
    fn a_cpu_without_the_topology_leaves_does_not_get_them() {
        let mut old = offer();
        old.retain(|entry| !matches!(entry.function, 0xb | 0x1f));
        assert!(entries(&old, 0, 2, true).iter().all(|entry| !matches!(entry.function, 0xb | 0x1f)));
    }

    #[test]
    fn address_bits_come_from_the_cpu() {
        assert_eq!(physical_address_bits(&offer()), 0x27);
        assert_eq!(physical_address_bits(&[]), 36);
    }
}
