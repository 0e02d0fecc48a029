//! What a container may use, and the figures of what it uses.

use super::client::{container, eventually, shell};
use super::place::Garden;
use serde_json::{Value, json};

fn metrics(garden: &Garden, handle: &str) -> Value {
    garden.get(&container(handle, "/metrics"))
}

/// Every field of MemoryStat.
const MEMORY: &str = "active_anon active_file cache hierarchical_memory_limit inactive_anon \
    inactive_file mapped_file pgfault pgmajfault pgpgin pgpgout rss total_active_anon \
    total_active_file total_cache total_inactive_anon total_inactive_file total_mapped_file \
    total_pgfault total_pgmajfault total_pgpgin total_pgpgout total_rss total_unevictable \
    unevictable swap hierarchical_memsw_limit total_swap anon file swapcached \
    TotalUsageTowardLimit";

#[test]
fn running_out_of_memory_is_an_event() {
    let mut garden = Garden::start("oom");
    garden
        .create(&json!({"handle": "c", "limits": {"memory_limits": {"limit_in_bytes": 32 << 20}}}));
    garden.make("other");
    let hog = "x=0123456789abcdef; while :; do x=$x$x; done";
    assert_eq!(garden.sh("c", hog).status, 137);
    eventually("the event is there", || {
        (garden.info("c")["Events"] == json!(["Out of memory"])).then_some(())
    });
    assert_eq!(garden.says("other", "echo alive"), "alive");
    let events = garden.info("other")["Events"].clone();
    assert!(events.is_null() || events == json!([]), "{events}");
    garden.restart(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(garden.info("c")["Events"], json!(["Out of memory"]), "also for the next daemon");
    garden.finish();
}

#[test]
fn a_disk_ends_at_its_quota() {
    let garden = Garden::start("quota");
    garden.create(&json!({"handle": "own", "limits": {
        "disk_limits": {"byte_hard": 16 << 20, "scope": 1}}}));
    garden.create(&json!({"handle": "total", "limits": {
        "disk_limits": {"byte_hard": 16 << 20, "scope": 0}}}));
    let fill = "dd if=/dev/zero of=/tmp/big bs=64k count=1024; sync; wc -c < /tmp/big";
    let written = |handle: &str| -> u64 {
        let ended = garden.sh(handle, fill);
        assert!(ended.err.contains("uota exceeded"), "{ended:?}");
        ended.out.trim().parse().expect("a size")
    };
    let (own, total) = (written("own"), written("total"));
    assert!((8 << 20..=16 << 20).contains(&own), "{own}");
    assert!(total < own, "the image counts too: {total} and {own}");
    assert_eq!(garden.says("own", "rm /tmp/big; echo small > /tmp/s; cat /tmp/s"), "small");
    garden.finish();
}

#[test]
fn processes_are_counted_and_bounded() {
    let garden = Garden::start("pids");
    garden.create(&json!({"handle": "c", "limits": {"pid_limits": {"max": 30}}}));
    let bomb = "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; echo made";
    let ended = garden.sh("c", bomb);
    assert!(ended.err.contains("can't fork"), "{ended:?}");
    let pids = metrics(&garden, "c")["PidStat"].clone();
    let current = pids["Current"].as_u64().expect("a number");
    assert!((20..=30).contains(&current), "{pids}");
    assert_eq!(pids["Max"], 30);
    assert_eq!(garden.get("/ping"), json!({}));
    garden.destroy("c");
    garden.finish();
}

#[test]
fn figures_follow_what_a_container_does() {
    let garden = Garden::start("metrics");
    garden
        .create(&json!({"handle": "c", "limits": {"memory_limits": {"limit_in_bytes": 64 << 20}}}));
    let before = metrics(&garden, "c");
    let fields = ["MemoryStat", "CPUStat", "DiskStat", "PidStat"];
    assert!(fields.iter().all(|field| before[field].is_object()), "{before}");
    assert!(before.get("NetworkStat").is_some() && before["CPUEntitlement"].is_u64(), "{before}");
    for field in MEMORY.split_whitespace() {
        assert!(before["MemoryStat"][field].is_u64(), "{field} of {before}");
    }
    for field in ["Usage", "User", "System"] {
        assert!(before["CPUStat"][field].is_u64(), "{field} of {before}");
    }
    for field in ["TotalBytesUsed", "TotalInodesUsed", "ExclusiveBytesUsed", "ExclusiveInodesUsed"]
    {
        assert!(before["DiskStat"][field].is_u64(), "{field} of {before}");
    }
    for field in ["RxBytes", "TxBytes"] {
        assert!(before["NetworkStat"][field].is_u64(), "{field} of {before}");
    }
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; \
                  dd if=/dev/zero of=/root/file bs=1M count=10 2>/dev/null; sync";
    garden.says("c", script);
    let after = metrics(&garden, "c");
    let grew = |stat: &str, field: &str| {
        let number = |all: &Value| all[stat][field].as_u64().expect(field);
        number(&after) > number(&before)
    };
    assert!(grew("CPUStat", "Usage"), "{after}");
    let usage = after["CPUStat"]["Usage"].as_u64().expect("ns");
    assert!((1_000_000..600_000_000_000).contains(&usage), "nanoseconds: {usage}");
    assert!(after["Age"].as_u64() > before["Age"].as_u64(), "{after}");
    let disk = eventually("the disk's figures follow", || {
        let disk = metrics(&garden, "c")["DiskStat"].clone();
        (disk["ExclusiveBytesUsed"].as_u64() >= Some(10 << 20)).then_some(disk)
    });
    let bytes = |field: &str| disk[field].as_u64().expect(field);
    assert!(bytes("ExclusiveBytesUsed") < 12 << 20, "{disk}");
    assert!(bytes("TotalBytesUsed") > bytes("ExclusiveBytesUsed") + (1 << 20), "{disk}");
    let mut idle = garden.run("c", &shell("exec sleep 1000"));
    assert!(metrics(&garden, "c")["PidStat"]["Current"].as_u64() >= Some(2));
    idle.signal(1);
    idle.finish();
    assert_eq!(
        garden.get("/containers/bulk_metrics?handles=c")["c"]["Metrics"]["PidStat"]["Max"],
        0
    );
    garden.finish();
}

#[test]
fn clients_of_2015_change_limits_of_a_running_container() {
    let garden = Garden::start("putlimits");
    garden.make("c");
    let put = |which: &str, body: Value| {
        garden.ok("PUT", &container("c", &format!("/limits/{which}")), Some(&body))
    };
    let get = |which: &str| garden.get(&container("c", &format!("/limits/{which}")));
    let memory = json!({"limit_in_bytes": 64 << 20});
    assert_eq!(put("memory", memory.clone()), memory);
    assert_eq!(put("memory", json!({"limit_in_bytes": 0})), memory, "0 changes nothing");
    assert_eq!(get("memory"), memory);
    let too_small = json!({"limit_in_bytes": 4096});
    let refused = garden.fails("PUT", &container("c", "/limits/memory"), Some(&too_small));
    assert!(refused.2.starts_with("container c: cannot write `4096` to "), "{refused:?}");
    let cure = " while more is in use; end some of its processes, or give it more";
    assert!(refused.2.contains(cure), "{refused:?}");
    assert_eq!(get("memory"), memory, "the old one holds");
    assert_eq!(put("cpu", json!({"limit_in_shares": 256}))["limit_in_shares"], 256);
    // As it is effective: on the second version of control groups, a weight from 1 to 10000.
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let effective = if unified { 35 } else { 256 };
    assert_eq!(put("cpu", json!({}))["limit_in_shares"], effective);
    assert_eq!(get("cpu")["limit_in_shares"], effective);
    let disk = put("disk", json!({"byte_hard": 20 << 20, "scope": 1}));
    assert_eq!(disk["byte_hard"], 20 << 20, "{disk}");
    assert_eq!(put("disk", json!({}))["byte_hard"], 20 << 20, "four zeros change nothing");
    let fill = "dd if=/dev/zero of=/root/big bs=1M count=64; sync";
    assert!(garden.sh("c", fill).err.contains("uota exceeded"));
    let rate = json!({"rate": 1 << 20, "burst": 2 << 20});
    assert_eq!(put("bandwidth", rate.clone()), rate);
    let hog = "x=0123456789abcdef; while :; do x=$x$x; done";
    assert_eq!(garden.sh("c", hog).status, 137, "the new limit holds");
    garden.finish();
}

#[test]
fn memory_that_belongs_to_no_process_does_not_end_the_container() {
    let garden = Garden::start("victim");
    let limits = json!({"memory_limits": {"limit_in_bytes": 64 << 20}});
    let c = garden.create(&json!({"handle": "c", "limits": limits}));
    // Every process goes before pid 1, from its beginning.
    let told = "cat /proc/$$/oom_score_adj /proc/1/oom_score_adj";
    assert_eq!(garden.says(&c, told), "100\n0");
    // Half of the limit is the most that files in memory can take.
    assert_eq!(garden.says(&c, "df -k /dev/shm | tail -n 1 | awk '{print $2}'"), "32768");
    let filled = "dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>/dev/null; echo $?";
    assert_eq!(garden.says(&c, filled), "1");
    // What is too much is ended, and nothing else.
    let mut bystander = garden.run(&c, &json!({"path": "sh", "args": ["-c", "echo up; read go"]}));
    assert_eq!(bystander.line(), "up");
    let hog = "exec tail -n 1 /dev/zero";
    assert_eq!(garden.sh(&c, hog).status, 137);
    bystander.stdin("go\n");
    assert_eq!(bystander.finish().status, 0);
    garden.finish();
}
