//! An app that is an image, by a cloud controller through the sockets alone; its registry is another
//! machine.

use super::cc::Cc;
use super::flow::{desire, states, with_controller};
use super::{GUID, lab, port, staged};
use crate::docker::{layout, push};
use crate::lab::get;
use crate::neighbour::Neighbour;
use crate::server::{Registry, Setup, certificates};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Where the registry is.
const REGISTRY: &str = "192.0.2.2:5000";

/// A machine beside the box with a registry that has `app:1`, which anybody may ask, or which has to be
/// known and knows who asks (`guarded`).
fn beside(dir: PathBuf, guarded: bool) -> (Registry, Neighbour) {
    // Two tests beside each other have two neighbours.
    let neighbour = Neighbour::new(if guarded { "guard" } else { "dock" });
    let registry = neighbour.within(move || {
        let registry = Registry::start(&dir, Setup::Plain);
        push(&layout(&dir, &[]), "1");
        if !guarded {
            return registry;
        }
        registry.stop();
        certificates(&dir);
        Registry::start(&dir, Setup::Guarded)
    });
    (registry, neighbour)
}

/// A staging of this image in this environment.
fn staging(image: &str, env: &Value) -> Value {
    json!({
        "app_id": "app-guid", "log_guid": "app-guid", "lifecycle": "docker",
        "memory_mb": 128, "disk_mb": 512, "file_descriptors": 1024, "timeout": 300,
        "environment": env,
        "egress_rules": [{ "protocol": "tcp", "destinations": ["192.0.2.2"], "ports": [5000] }],
        "lifecycle_data": { "docker_image": image },
    })
}

/// Row 73, row 75, row 79, row 82: an image is staged by its manifest and configuration alone, in a container
/// whose rules let it reach the registry; what comes of it runs. What is not there is told.
#[test]
fn row_73_a_controller_stages_and_runs_an_image() {
    let settings = "docker_stack = \"tiny\"\n\n[registry]\ninsecure = [\"192.0.2.0/24\"]\n";
    let mut lab = lab("cc-image", settings);
    with_controller(&lab);
    let cc = Cc::start();
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let (registry, neighbour) = beside(dir, false);
    lab.serve();

    let image = format!("{REGISTRY}/ops/app:1");
    let (done, log) = staged(&lab, &cc, "staging-1", &staging(&image, &json!([])));
    let told = format!("{done}\n{log}\n{}", lab.daemon_log());
    assert_eq!(done["result"]["lifecycle_type"], "docker", "{told}");
    assert_eq!(done["result"]["lifecycle_metadata"]["docker_image"], image, "{told}");
    assert_eq!(done["result"]["process_types"]["web"], "/bin/serve a b", "{told}");
    let metadata = done["result"]["execution_metadata"].as_str().expect("a text");
    let read: Value = serde_json::from_str(metadata).expect("JSON");
    let ports = json!([{ "Port": 7000, "Protocol": "udp" }, { "Port": 9000, "Protocol": "tcp" }]);
    let whole = json!({ "cmd": ["a b"], "entrypoint": ["/bin/serve"], "ports": ports });
    assert_eq!(read, whole, "{told}");
    for line in ["Staging process started ...", "Staging process finished", "Staging Complete"] {
        assert!(log.contains(line), "{told}");
    }

    let none = staging(&format!("{REGISTRY}/ops/none:1"), &json!([]));
    let (done, log) = staged(&lab, &cc, "staging-2", &none);
    assert_eq!(done["error"]["id"], "StagingError", "{done}");
    let line = "Staging process failed: failed to fetch metadata from [192.0.2.2:5000/ops/none] \
                with tag [1] and insecure registries [192.0.2.2:5000] due to ";
    assert!(log.contains(line), "{log}");

    let wanted = desire(
        GUID,
        json!({
            "droplet_uri": "", "docker_image": image, "start_command": "", "stack": "",
            "execution_metadata": metadata, "disk_mb": 512,
            "routing_info": { "tcp_routes": [
                { "router_group_guid": "r", "external_port": 8000, "container_port": 9000 },
            ] },
        }),
    );
    cc.state().apps.insert(GUID.into(), wanted.clone());
    let line = format!("PUT /v1/apps/{GUID}");
    let answer = port(&lab, &line, &[], wanted.to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.json());
    lab.until("it runs", |lab| (states(lab, GUID) == ["RUNNING"]).then_some(()));
    let said = lab.until("it answers", |_| get("127.0.0.1", 8000));
    assert_eq!(said, "0\n0\n/\nhello image 9000 1a b\n");
    cc.state().apps.remove(GUID);
    assert_eq!(port(&lab, &format!("DELETE /v1/apps/{GUID}"), &[], b"").status, 202);
    lab.until("it is gone", |lab| (lab.run(&["apps", "--json"]).out.trim() == "[]").then_some(()));
    drop((registry, neighbour));
    lab.finish();
}

/// Row 75: the box's own certificates and login reach the builder of images, which asks from inside a
/// container; whoever says there whom to trust goes without the login. What is missing is told.
#[test]
fn row_75_certificates_and_logins_of_the_box_reach_the_builder() {
    let mut lab = lab("cc-guarded", "docker_stack = \"tiny\"\n");
    with_controller(&lab);
    let cc = Cc::start();
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let (registry, neighbour) = beside(dir.clone(), true);
    lab.serve();
    let image = format!("{REGISTRY}/ops/app:1");
    let refused = |guid: &str, env: Value, why: &str| {
        let (done, log) = staged(&lab, &cc, guid, &staging(&image, &env));
        assert_eq!(done["error"]["id"], "StagingError", "{done}\n{log}");
        let line = log.lines().find(|line| line.contains("Staging process failed"));
        let line = line.unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains(why), "{line}");
    };
    refused("staging-1", json!([]), "certificate");
    let own = lab.root.join("etc/terrarium/certs.d").join(REGISTRY);
    fs::create_dir_all(&own).expect("directory");
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs::copy(dir.join("client").join(name), own.join(name)).expect("copied");
    }
    refused("staging-2", json!([]), "login");
    let auth = json!({ "auths": { REGISTRY: { "auth": "YW5uOnNlY3JldA==" } } });
    let file = lab.root.join("etc/terrarium/auth.json");
    fs::write(&file, auth.to_string()).expect("logins");
    fs::set_permissions(&file, crate::docker::mode(0o600)).expect("mode");
    let (done, log) = staged(&lab, &cc, "staging-3", &staging(&image, &json!([])));
    assert_eq!(done["result"]["lifecycle_metadata"]["docker_image"], image, "{done}\n{log}");
    let led = json!([{ "name": "no_proxy", "value": "x" }]);
    refused("staging-4", led, "login");
    drop((registry, neighbour));
    lab.finish();
}
