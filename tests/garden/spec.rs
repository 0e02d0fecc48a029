//! Every field of the specification that a container is created from.

use super::client::{container, shell};
use super::lab::get;
use super::place::{EXTERNAL, Garden};
use serde_json::json;
use std::fs;

#[test]
fn bind_mounts_are_read_only_or_writable_and_made_when_missing() {
    let garden = Garden::start("binds");
    let source = garden.lab().root.join("shared");
    fs::create_dir_all(source.join("deep")).expect("source");
    fs::write(source.join("file"), "of the host\n").expect("file");
    let src = source.to_str().expect("UTF-8");
    let file = source.join("file");
    let binds = json!([
        {"src_path": src, "dst_path": "/made/ro"},
        {"src_path": src, "dst_path": "/made/rw", "mode": 1, "origin": 0},
        {"src_path": file, "dst_path": "/made/file", "mode": 0},
        {"src_path": "/home/vcap", "dst_path": "/made/own", "mode": 1, "origin": 1},
    ]);
    // Who in the container may write is told by the host's permissions.
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
    fs::set_permissions(&source, open).expect("permissions");
    let c = garden.create(&json!({"handle": "c", "bind_mounts": binds}));
    assert_eq!(garden.says(&c, "cat /made/ro/file /made/file"), "of the host\nof the host");
    let ended = garden.sh(&c, "echo x > /made/ro/new");
    assert!(ended.status != 0 && ended.err.contains("Read-only"), "{ended:?}");
    assert_ne!(garden.sh(&c, "echo x > /made/file").status, 0);
    garden.says(&c, "echo in > /made/rw/new");
    assert_eq!(fs::read_to_string(source.join("new")).expect("written through"), "in\n");
    assert_eq!(garden.says(&c, "echo own > /made/own/x; cat /home/vcap/x"), "own");
    garden.destroy(&c);
    assert!(source.join("new").exists(), "what is mounted is not removed with the container");
    let missing = json!({"handle": "m", "bind_mounts": [
        {"src_path": "/no/such/source", "dst_path": "/x"}]});
    let message = garden.create_fails(&missing);
    assert!(message.contains("/no/such/source"), "{message}");
    assert_eq!(garden.list(""), [""; 0]);
    garden.finish();
}

#[test]
fn symbolic_links_of_the_image_do_not_lead_a_bind_mount_out() {
    let garden = Garden::start("bindlinks");
    let root = garden.lab().root.clone();
    let image = root.join("image");
    fs::create_dir_all(image.join("etc")).expect("image");
    let outside = root.join("outside");
    fs::create_dir_all(&outside).expect("outside");
    std::os::unix::fs::symlink(&outside, image.join("evil")).expect("link");
    std::os::unix::fs::symlink("../../../../..", image.join("up")).expect("link");
    let source = root.join("source");
    fs::create_dir_all(&source).expect("source");
    for target in ["/evil/made", "/up/tmp/made"] {
        let spec = json!({"handle": "c", "image": {"uri": image},
            "bind_mounts": [{"src_path": source, "dst_path": target}]});
        let body = spec.to_string();
        // Refused or kept inside; both are right, leaving is not.
        let answer = garden.call("POST", "/containers", Some(&body));
        if answer.status() == 200 {
            garden.destroy("c");
        }
        assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0, "{target}");
    }
    garden.finish();
}

#[test]
fn a_root_of_the_box_is_a_directory_or_a_tar_file() {
    let garden = Garden::start("rootfs");
    let root = garden.lab().root.clone();
    let image = root.join("image");
    fs::create_dir_all(image.join("bin")).expect("image");
    let inside = garden.make("default");
    let mut flow = garden.call("GET", "/containers/default/files?source=%2Fbin%2Fbusybox", None);
    assert_eq!(flow.status(), 200);
    let tar = std::mem::take(&mut flow.body);
    fs::write(root.join("busybox.tar"), tar).expect("tar");
    let bin = image.join("bin");
    let (from, to) = (root.join("busybox.tar"), bin.to_str().expect("UTF-8").to_owned());
    super::lab::tool("tar", &["-xf", from.to_str().expect("UTF-8"), "-C", &to]);
    std::os::unix::fs::symlink("busybox", bin.join("sh")).expect("link");
    std::os::unix::fs::symlink("busybox", bin.join("cat")).expect("link");
    fs::write(image.join("marker"), "mine\n").expect("marker");
    let tar = root.join("image.tar");
    let tar_path = tar.to_str().expect("UTF-8");
    super::lab::tool("tar", &["-cf", tar_path, "-C", image.to_str().expect("UTF-8"), "."]);
    for spec in [
        json!({"handle": "c", "rootfs": image}),
        json!({"handle": "c", "image": {"uri": image}}),
        json!({"handle": "c", "image": {"uri": tar}, "rootfs": "/ignored"}),
    ] {
        garden.create(&spec);
        assert_eq!(garden.says("c", "cat /marker"), "mine", "{spec}");
        garden.says("c", "echo changed > /marker");
        garden.destroy("c");
        assert_eq!(fs::read_to_string(image.join("marker")).expect("marker"), "mine\n");
    }
    for uri in ["/no/such/root", "nonsense://x/y", "preloaded:no-such-stack"] {
        let message = garden.create_fails(&json!({"handle": "c", "image": {"uri": uri}}));
        assert!(!message.is_empty(), "{uri}");
    }
    garden.destroy(&inside);
    garden.finish();
}

#[test]
fn limits_are_reported_as_given() {
    let garden = Garden::start("speclimits");
    let limits = json!({
        "bandwidth_limits": {"rate": 1_000_000, "burst": 2_000_000},
        "cpu_limits": {"limit_in_shares": 512},
        "disk_limits": {"byte_hard": 64 << 20, "inode_hard": 1000, "scope": 1},
        "memory_limits": {"limit_in_bytes": 64 << 20},
        "pid_limits": {"max": 50},
    });
    garden.create(&json!({"handle": "c", "limits": limits}));
    let at = |which: &str| garden.get(&container("c", &format!("/limits/{which}")));
    assert_eq!(at("memory"), json!({"limit_in_bytes": 64 << 20}));
    assert_eq!(at("cpu")["limit_in_shares"], 512);
    let disk = at("disk");
    assert_eq!((&disk["byte_hard"], &disk["scope"]), (&json!(64 << 20), &json!(1)), "{disk}");
    assert_eq!(
        disk["inode_hard"], 1000,
        "btrfs has no such limit: it is told, as it was asked for"
    );
    assert_eq!(at("bandwidth"), json!({"rate": 1_000_000, "burst": 2_000_000}));
    assert_eq!(garden.get("/containers/c/metrics")["PidStat"]["Max"], 50);
    garden.make("free");
    for which in ["bandwidth", "disk", "memory"] {
        let none = garden.get(&container("free", &format!("/limits/{which}")));
        let zero = none.as_object().expect("an object").values().all(|value| *value == 0);
        assert!(zero, "{which}: {none}");
    }
    garden.finish();
}

#[test]
fn a_total_disk_below_the_size_of_the_image_is_refused() {
    let garden = Garden::start("toosmall");
    let spec = |scope: u8| json!({"handle": "c", "limits": {"disk_limits": {"byte_hard": 1 << 20, "scope": scope}}});
    let message = garden.create_fails(&spec(0));
    assert!(!message.is_empty());
    assert_eq!(garden.list(""), [""; 0]);
    garden.create(&spec(1));
    assert_eq!(garden.says("c", "echo small > /tmp/x; cat /tmp/x"), "small");
    garden.finish();
}

#[test]
fn networks_are_dynamic_a_subnet_or_an_address() {
    let garden = Garden::start("subnets");
    let make = |handle: &str, network: &str| {
        garden.create(&json!({"handle": handle, "network": network}));
        let info = garden.info(handle);
        let text = |field: &str| info[field].as_str().expect(field).to_owned();
        (text("HostIP"), text("ContainerIP"))
    };
    let pair = |host: &str, own: &str| (host.to_owned(), own.to_owned());
    assert_eq!(make("a", "10.9.1.0/24"), pair("10.9.1.1", "10.9.1.2"));
    assert_eq!(make("b", "10.9.1.7/24"), pair("10.9.1.1", "10.9.1.7"));
    assert_eq!(make("c", "10.9.1.0/24"), pair("10.9.1.1", "10.9.1.3"));
    assert_eq!(make("d", "10.9.2.0"), pair("10.9.2.1", "10.9.2.2"), "/30 when not said");
    for bad in [
        "10.9.1.7/24",
        "10.9.1.1/24",
        "10.9.1.255/24",
        "10.9.1.0/25",
        "10.9.0.0/16",
        "10.254.3.0/30",
        "10.254.0.0/8",
        "10.9.9.9/40",
        "nonsense",
    ] {
        let message = garden.create_fails(&json!({"handle": "x", "network": bad}));
        assert!(!message.is_empty(), "{bad}");
    }
    for handle in ["a", "b", "c", "d"] {
        garden.destroy(handle);
    }
    // Addresses are free when the links are gone, the subnet is at once.
    let (host, own) = make("again", "10.9.1.0/24");
    assert!(host == "10.9.1.1" && own.starts_with("10.9.1."), "{host} {own}");
    garden.destroy("again");
    // Its links leave behind the answer; until then another size of it is not to be had.
    let body = json!({"handle": "less", "network": "10.9.1.0/25"}).to_string();
    super::client::eventually("another size of it is free", || {
        (garden.call("POST", "/containers", Some(&body)).status() == 200).then_some(())
    });
    garden.finish();
}

#[test]
fn ports_and_rules_of_the_specification_hold_from_the_first_moment() {
    let garden = Garden::with("specnet", "\n[net]\ndeny = [\"0.0.0.0/0\"]\n");
    let server = "mkdir /tmp/w; echo served > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w";
    garden.create(&json!({"handle": "c", "netin": [
        {"host_port": 0, "container_port": 8080}, {"host_port": 5555, "container_port": 0}]}));
    let ports = garden.info("c")["MappedPorts"].clone();
    let host_port = ports[0]["HostPort"].as_u64().expect("a host port");
    assert!((61001..=65534).contains(&host_port), "{ports}");
    assert_eq!(
        ports,
        json!([{"HostPort": host_port, "ContainerPort": 8080},
        {"HostPort": 5555, "ContainerPort": 5555}])
    );
    let mut process = garden.run("c", &shell(server));
    let body = super::client::eventually("it serves", || get(EXTERNAL, host_port));
    assert_eq!(body, "served\n");
    let ip = super::place::OUTSIDE;
    super::place::outside();
    garden.create(&json!({"handle": "open", "netout_rules": [
        {"protocol": 1, "networks": [{"start": ip, "end": ip}], "ports": [{"start": 8080, "end": 8080}]}
    ]}));
    garden.make("closed");
    let ask = format!("timeout 5 wget -q -O - http://{ip}:8080/");
    assert_eq!(garden.says("open", &ask), "outside");
    assert_ne!(garden.sh("closed", &ask).status, 0);
    process.signal(1);
    assert_eq!(process.finish().status, 137);
    let refused = json!({"handle": "x", "netout_rules": [
        {"protocol": 3, "ports": [{"start": 1, "end": 2}]}]});
    let message = garden.create_fails(&refused);
    assert!(message.contains("Ports cannot be specified for Protocol ICMP"), "{message}");
    garden.finish();
}

#[test]
fn a_privileged_container_has_the_boxs_root() {
    let garden = Garden::start("privileged");
    garden.create(&json!({"handle": "p", "privileged": true}));
    garden.make("u");
    let map = "cat /proc/self/uid_map";
    let line: Vec<String> = garden.says("p", map).split_whitespace().map(str::to_owned).collect();
    assert_eq!(line[..2], ["0", "0"], "{line:?}");
    let unprivileged = garden.says("u", map);
    assert!(!unprivileged.split_whitespace().take(2).eq(["0", "0"]), "{unprivileged}");
    let mount = "mkdir /tmp/m && mount -t tmpfs none /tmp/m && umount /tmp/m";
    assert_eq!(garden.sh("p", mount).status, 0);
    assert_ne!(garden.sh("u", mount).status, 0);
    let caps = garden.says("u", "sed -n 's/^CapBnd:.//p' /proc/self/status");
    assert_eq!(caps, "00000000a80425fb", "the 14 of Garden");
    garden.finish();
}

/// An image layout with busybox, which wants these directories to be there.
fn image_with_volumes(dir: &std::path::Path, volumes: &[&str]) -> String {
    let text = |path: std::path::PathBuf| path.to_str().expect("UTF-8").to_owned();
    fs::create_dir_all(dir).expect("directory");
    let (layout, bundle) = (text(dir.join("layout")), text(dir.join("bundle")));
    let image = format!("{layout}:one");
    let umoci = |args: &[&str]| super::lab::tool("umoci", args);
    umoci(&["init", "--layout", &layout]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, &bundle]);
    let root = dir.join("bundle/rootfs");
    for below in ["bin", "etc", "tmp", "dev", "proc", "sys", "kept"] {
        fs::create_dir_all(root.join(below)).expect("directory");
    }
    for name in ["sh", "stat"] {
        fs::copy("/bin/busybox", root.join("bin").join(name)).expect("busybox");
    }
    fs::write(root.join("kept/file"), "kept\n").expect("write");
    std::os::unix::fs::symlink("/tmp", root.join("link")).expect("link");
    umoci(&["repack", "--image", &image, &bundle]);
    for volume in volumes {
        umoci(&["config", "--image", &image, "--config.volume", volume]);
    }
    format!("oci://{layout}")
}

#[test]
fn directories_that_an_image_wants_are_there() {
    let garden = Garden::start("volumes");
    let root = garden.lab().root.clone();
    let uri = image_with_volumes(&root.join("good"), &["/data/deep/", "/kept", "/link/below"]);
    let c = garden.create(&json!({"image": {"uri": uri}}));
    let script = "stat -c '%a %u %F %n' /data /data/deep /tmp/below; stat -c %F /kept/file";
    let expected = "755 0 directory /data\n755 0 directory /data/deep\n\
                    755 0 directory /tmp/below\nregular file";
    assert_eq!(garden.says(&c, script), expected);
    assert_eq!(garden.says(&c, "echo mine > /data/deep/x; echo $(stat -c %s /data/deep/x)"), "5");
    let uri = image_with_volumes(&root.join("bad"), &["/bin/sh"]);
    let said = garden.create_fails(&json!({"image": {"uri": uri}}));
    let why = "cannot make the directory /bin/sh, a volume of the image: a file is in the way";
    assert!(said.contains(why), "{said}");
    garden.destroy(&c);
    assert_eq!(garden.list(""), [""; 0]);
    garden.finish();
}
