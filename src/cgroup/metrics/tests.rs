//! The kernel's texts, in their whole length and order.

use super::*;

/// v1's memory.stat of Linux 6.18: a shell that has written a file. The nested figures differ from
/// its own as if a group were below.
const V1: &str = "cache 7151616\nrss 143360\nrss_huge 0\nshmem 0\nmapped_file 0\ndirty 5251072\n\
    writeback 0\nworkingset_refault_anon 0\nworkingset_refault_file 466\nswap 0\nswapcached 8192\n\
    pgpgin 1004\npgpgout 483\npgfault 835\npgmajfault 2\ninactive_anon 110592\nactive_anon 4096\n\
    inactive_file 5599232\nactive_file 1544192\nunevictable 0\n\
    hierarchical_memory_limit 9223372036854771712\nhierarchical_memsw_limit 67108864\n\
    total_cache 8151616\ntotal_rss 243360\ntotal_rss_huge 0\ntotal_shmem 0\ntotal_mapped_file 77\n\
    total_dirty 5251072\ntotal_writeback 0\ntotal_workingset_refault_anon 0\n\
    total_workingset_refault_file 466\ntotal_swap 4096\ntotal_swapcached 8192\n\
    total_pgpgin 1005\ntotal_pgpgout 484\ntotal_pgfault 836\ntotal_pgmajfault 3\n\
    total_inactive_anon 110593\ntotal_active_anon 4097\ntotal_inactive_file 6599232\n\
    total_active_file 1544193\ntotal_unevictable 1\n";

/// v2's memory.stat in the form of Linux 6.1.
const V2: &str = "anon 4194304\nfile 9437184\nkernel 1310720\nkernel_stack 65536\npagetables 98304\n\
    sec_pagetables 0\npercpu 2304\nsock 0\nvmalloc 0\nshmem 12288\nzswap 0\nzswapped 0\n\
    file_mapped 1052672\nfile_dirty 4096\nfile_writeback 0\nswapcached 20480\nanon_thp 0\n\
    file_thp 0\nshmem_thp 0\ninactive_anon 4141056\nactive_anon 24576\ninactive_file 7340032\n\
    active_file 2084864\nunevictable 512\nslab_reclaimable 716800\nslab_unreclaimable 204800\n\
    slab 921600\nworkingset_refault_anon 0\nworkingset_refault_file 11\n\
    workingset_activate_anon 0\nworkingset_activate_file 3\nworkingset_restore_anon 0\n\
    workingset_restore_file 0\nworkingset_nodereclaim 0\npgscan 120\npgsteal 118\n\
    pgscan_kswapd 0\npgscan_direct 120\npgsteal_kswapd 0\npgsteal_direct 118\npgfault 7312\n\
    pgmajfault 19\npgrefill 0\npgactivate 301\npgdeactivate 0\npglazyfree 0\npglazyfreed 0\n\
    zswpin 0\nzswpout 0\nthp_fault_alloc 0\nthp_collapse_alloc 0\n";

fn check(memory: &Memory, expected: &[(&str, u64)]) {
    for (name, number) in expected {
        assert_eq!(memory.figures.get(*name), Some(number), "{name}");
    }
    let names: Vec<&str> = memory.figures.keys().map(String::as_str).collect();
    assert_eq!(names, MEMORY_NAMES, "these names and no others");
}

#[test]
fn v1_figures_are_the_kernels_own() {
    let memory = memory_v1(V1).expect("whole");
    check(
        &memory,
        &[
            ("cache", 7_151_616),
            ("total_cache", 8_151_616),
            ("total_rss", 243_360),
            ("hierarchical_memory_limit", 9_223_372_036_854_771_712),
            ("hierarchical_memsw_limit", 67_108_864),
            ("pgfault", 835),
            ("total_pgmajfault", 3),
            ("swapcached", 8192),
            ("total_swap", 4096),
            ("total_unevictable", 1),
            ("anon", 0),
            ("file", 0),
        ],
    );
    assert_eq!(memory.usage_toward_limit, 243_360 + 8_151_616 + 4096 - 6_599_232);
}

#[test]
fn v1_without_swap_accounting_counts_the_rest() {
    let text: String = V1
        .lines()
        .filter(|line| !line.contains("swap") && !line.contains("memsw"))
        .flat_map(|l| [l, "\n"])
        .collect();
    let memory = memory_v1(&text).expect("whole");
    check(&memory, &[("total_swap", 0), ("hierarchical_memsw_limit", 0)]);
    assert_eq!(memory.usage_toward_limit, 243_360 + 8_151_616 - 6_599_232);
}

#[test]
fn v2_figures_are_told_in_v1_words() {
    let beside = Beside { max: Some(1 << 26), swap_max: Some(0), swap: 4096 };
    let memory = memory_v2(V2, &beside).expect("whole");
    check(
        &memory,
        &[
            ("anon", 4_194_304),
            ("rss", 4_194_304),
            ("total_rss", 4_194_304),
            ("file", 9_437_184),
            ("cache", 9_437_184),
            ("total_cache", 9_437_184),
            ("mapped_file", 1_052_672),
            ("total_mapped_file", 1_052_672),
            ("swapcached", 20_480),
            ("swap", 4096),
            ("total_swap", 4096),
            ("total_inactive_file", 7_340_032),
            ("total_active_anon", 24_576),
            ("pgfault", 7312),
            ("total_pgmajfault", 19),
            ("pgpgin", 0),
            ("total_pgpgout", 0),
            ("unevictable", 512),
            ("hierarchical_memory_limit", 1 << 26),
            ("hierarchical_memsw_limit", 1 << 26),
        ],
    );
    assert_eq!(memory.usage_toward_limit, 4_194_304 + 9_437_184 + 20_480 - 7_340_032);
}

#[test]
fn no_limit_is_the_same_number_on_both_versions() {
    let unlimited = memory_v1(V1).expect("whole").figures["hierarchical_memory_limit"];
    let both = ["hierarchical_memory_limit", "hierarchical_memsw_limit"];
    let memory = memory_v2(V2, &Beside::default()).expect("whole");
    check(&memory, &both.map(|name| (name, unlimited)));
    let beside = Beside { max: Some(u64::MAX), swap_max: Some(u64::MAX), swap: 0 };
    check(&memory_v2(V2, &beside).expect("whole"), &both.map(|name| (name, unlimited)));
    let memory_alone = Beside { max: Some(4096), ..Beside::default() };
    let memory = memory_v2(V2, &memory_alone).expect("whole");
    check(&memory, &[(both[0], 4096), (both[1], unlimited)]);
}

#[test]
fn usage_is_never_below_zero() {
    // The kernel's counters are sums over processors, taken one after the other.
    let v1 = memory_v1("total_rss 1\ntotal_cache 2\ntotal_swap 3\ntotal_inactive_file 7\n");
    assert_eq!(v1.expect("whole").usage_toward_limit, 0);
    let v2 = memory_v2("anon 1\nfile 2\ninactive_file 4\n", &Beside::default());
    assert_eq!(v2.expect("whole").usage_toward_limit, 0);
}

#[test]
fn a_text_without_what_every_kernel_writes_is_refused() {
    for lost in ["total_rss", "total_cache", "total_inactive_file"] {
        let text = V1.replace(&format!("{lost} "), "other ");
        assert_eq!(memory_v1(&text), None, "{lost}");
    }
    for lost in ["anon", "file", "inactive_file"] {
        let text = format!("\n{V2}").replace(&format!("\n{lost} "), "\nother ");
        assert_eq!(memory_v2(&text, &Beside::default()), None, "{lost}");
    }
    for garbage in ["", "\n \n", "total_rss", "total_rss x", "total_rss -1", "anon 1 2"] {
        assert_eq!(memory_v1(garbage), None, "{garbage:?}");
        assert_eq!(memory_v2(garbage, &Beside::default()), None, "{garbage:?}");
    }
}

#[test]
fn processor_time_is_in_nanoseconds_on_both_versions() {
    let times = CpuTimes { all: 1_512_345_678, user: 1_200_000_000, system: 310_000_000 };
    assert_eq!(cpu_v1(1_512_345_678, "user 120\nsystem 31\n"), Some(times));
    assert_eq!(cpu_v1(1, "user 120\n"), None);
    let text = "usage_usec 1512345\nuser_usec 1200000\nsystem_usec 312345\nnr_periods 0\n\
        nr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n";
    let times = CpuTimes { all: 1_512_345_000, user: 1_200_000_000, system: 312_345_000 };
    assert_eq!(cpu_v2(text), Some(times));
    assert_eq!(cpu_v2("usage_usec 1\nuser_usec 1\n"), None);
}
