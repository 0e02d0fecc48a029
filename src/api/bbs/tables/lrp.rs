//! Desired and actual LRPs.

use super::super::proto::{
    Message, flat, json_map, many, map, numbers, one, signed, text, text_map, texts, truth,
    unsigned, word,
};
use super::{
    ACTION, CERTIFICATE, DEPENDENCY, EGRESS, ENV, FILE, LAYER, LOG_RATE, METRIC_TAG,
    MODIFICATION_TAG, NETWORK, VOLUME,
};

/// `DesiredLRP`.
pub static DESIRED: Message = Message(&[
    text(1, "process_guid"),
    text(2, "domain"),
    text(3, "rootfs"),
    signed(4, "instances"),
    many(5, "env", &ENV),
    one(6, "setup", &ACTION),
    one(7, "action", &ACTION),
    unsigned(8, "start_timeout"),
    one(9, "monitor", &ACTION),
    signed(10, "disk_mb"),
    signed(11, "memory_mb"),
    unsigned(12, "cpu_weight"),
    truth(13, "privileged"),
    numbers(14, "ports"),
    one(15, "routes", &ROUTES),
    text(16, "log_source"),
    text(17, "log_guid"),
    text(18, "metrics_guid"),
    text(19, "annotation"),
    many(20, "egress_rules", &EGRESS),
    one(21, "modification_tag", &MODIFICATION_TAG),
    many(22, "cached_dependencies", &DEPENDENCY),
    text(23, "legacy_download_user"),
    text(24, "trusted_system_certificates_path"),
    many(25, "volume_mounts", &VOLUME),
    one(26, "network", &NETWORK),
    signed(27, "start_timeout_ms"),
    texts(28, "placement_tags"),
    signed(29, "max_pids"),
    one(30, "certificate_properties", &CERTIFICATE),
    text(31, "image_username"),
    text(32, "image_password"),
    one(33, "check_definition", &CHECKS),
    many(34, "image_layers", &LAYER),
    map(35, "metric_tags", &METRIC_TAG),
    many(36, "sidecars", &SIDECAR),
    one(37, "log_rate_limit", &LOG_RATE),
    many(38, "volume_mounted_files", &FILE),
    word(39, "update_strategy", &["", "RECREATE"]),
]);

/// `ProtoRoutes`: each router's own JSON.
static ROUTES: Message = Message(&[json_map(1)]);

static CHECKS: Message = Message(&[
    many(1, "checks", &CHECK),
    text(2, "log_source"),
    many(3, "readiness_checks", &CHECK),
]);

static CHECK: Message =
    Message(&[one(1, "tcp_check", &TCP_CHECK), one(2, "http_check", &HTTP_CHECK)]);

static TCP_CHECK: Message =
    Message(&[unsigned(1, "port"), unsigned(2, "connect_timeout_ms"), unsigned(3, "interval_ms")]);

static HTTP_CHECK: Message = Message(&[
    unsigned(1, "port"),
    unsigned(2, "request_timeout_ms"),
    text(3, "path"),
    unsigned(4, "interval_ms"),
]);

static SIDECAR: Message =
    Message(&[one(1, "action", &ACTION), signed(2, "disk_mb"), signed(3, "memory_mb")]);

/// `DesiredLRPUpdate`.
pub static UPDATE: Message = Message(&[
    signed(1, "instances").or_none(),
    one(2, "routes", &ROUTES),
    text(3, "annotation").or_none(),
    map(4, "metric_tags", &METRIC_TAG),
    text(5, "image_username").or_none(),
    text(6, "image_password").or_none(),
]);

/// `DesiredLRPSchedulingInfo`.
pub static SCHEDULING: Message = Message(&[
    flat(1, &DESIRED_KEY),
    text(2, "annotation"),
    signed(3, "instances"),
    flat(4, &RESOURCE),
    one(5, "routes", &ROUTES),
    one(6, "modification_tag", &MODIFICATION_TAG),
    one(7, "volume_placement", &VOLUME_PLACEMENT),
    texts(8, "placement_tags"),
]);

static DESIRED_KEY: Message =
    Message(&[text(1, "process_guid"), text(2, "domain"), text(3, "log_guid")]);

static RESOURCE: Message = Message(&[
    signed(1, "memory_mb"),
    signed(2, "disk_mb"),
    text(3, "rootfs"),
    signed(4, "max_pids"),
]);

static VOLUME_PLACEMENT: Message = Message(&[texts(1, "driver_names")]);

/// `ActualLRP`.
pub static ACTUAL: Message = Message(&[
    flat(1, &ACTUAL_KEY),
    flat(2, &INSTANCE_KEY),
    flat(3, &NET_INFO),
    signed(4, "crash_count"),
    text(5, "crash_reason"),
    text(6, "state"),
    text(7, "placement_error"),
    signed(8, "since"),
    one(9, "modification_tag", &MODIFICATION_TAG),
    word(10, "presence", &PRESENCE),
    text_map(12, "metric_tags"),
    truth(13, "routable").or_none(),
    text(14, "availability_zone"),
]);

/// `ActualLRPKey`.
pub static ACTUAL_KEY: Message =
    Message(&[text(1, "process_guid"), signed(2, "index"), text(3, "domain")]);

/// `ActualLRPInstanceKey`.
pub static INSTANCE_KEY: Message = Message(&[text(1, "instance_guid"), text(2, "cell_id")]);

/// `ActualLRPNetInfo`.
pub static NET_INFO: Message = Message(&[
    text(1, "address"),
    many(2, "ports", &PORT),
    text(3, "instance_address"),
    word(4, "preferred_address", &["", "INSTANCE", "HOST"]),
]);

static PORT: Message = Message(&[unsigned(1, "container_port"), unsigned(2, "host_port")]);

/// On one box no other one takes over.
pub static PRESENCE: [&str; 3] = ["ORDINARY", "EVACUATING", "SUSPECT"];

/// `ActualLRPGroup`, as until 2019.
pub static GROUP: Message = Message(&[one(1, "instance", &ACTUAL)]);

/// `CellPresence`.
pub static CELL: Message = Message(&[
    text(1, "cell_id"),
    text(2, "rep_address"),
    text(3, "zone"),
    one(4, "capacity", &CAPACITY),
    many(5, "rootfs_providers", &PROVIDER),
    texts(6, "placement_tags"),
    texts(7, "optional_placement_tags"),
    text(8, "rep_url"),
]);

static CAPACITY: Message =
    Message(&[signed(1, "memory_mb"), signed(2, "disk_mb"), signed(3, "containers")]);

static PROVIDER: Message = Message(&[text(1, "name"), texts(2, "properties")]);
