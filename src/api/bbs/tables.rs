//! The messages that Tasks and LRPs have in common: actions, environments, rules, mounts. Each field
//! by its number in the BBS, under its name in the receptor's JSON.
//!
//! Source: the BBS's own definitions, models/*.proto of 2026, by number and type.

pub mod events;
pub mod lrp;
pub mod requests;
pub mod task;

use super::proto::{
    Message, many, numbers, one, refused, signed, text, text_map, texts, truth, unsigned, word,
};

/// `EnvironmentVariable`.
pub static ENV: Message = Message(&[text(1, "name"), text(2, "value")]);

/// `Action`: one of them.
pub static ACTION: Message = Message(&[
    one(1, "download", &DOWNLOAD),
    one(2, "upload", &UPLOAD),
    one(3, "run", &RUN),
    one(4, "timeout", &TIMEOUT),
    one(5, "emit_progress", &EMIT_PROGRESS),
    one(6, "try", &TRY),
    one(7, "parallel", &SEVERAL),
    one(8, "serial", &SEVERAL),
    one(9, "codependent", &SEVERAL),
]);

static DOWNLOAD: Message = Message(&[
    text(1, "artifact"),
    text(2, "from"),
    text(3, "to"),
    text(4, "cache_key"),
    text(5, "log_source"),
    text(6, "user"),
    text(7, "checksum_algorithm"),
    text(8, "checksum_value"),
]);

static UPLOAD: Message = Message(&[
    text(1, "artifact"),
    text(2, "from"),
    text(3, "to"),
    text(4, "log_source"),
    text(5, "user"),
]);

static RUN: Message = Message(&[
    text(1, "path"),
    texts(2, "args"),
    text(3, "dir"),
    many(4, "env", &ENV),
    one(5, "resource_limits", &RESOURCE_LIMITS),
    text(6, "user"),
    text(7, "log_source"),
    truth(8, "suppress_log_output"),
    refused(9, "action: run: volume_mounted_files: give them to the record itself"),
]);

static RESOURCE_LIMITS: Message = Message(&[
    unsigned(1, "nofile").or_none(),
    refused(2, "resource_limits: nproc: use max_pids, which is of the container"),
]);

static TIMEOUT: Message = Message(&[
    one(1, "action", &ACTION),
    signed(2, "timeout"),
    text(3, "log_source"),
    signed(4, "timeout_ms"),
]);

static EMIT_PROGRESS: Message = Message(&[
    one(1, "action", &ACTION),
    text(2, "start_message"),
    text(3, "success_message"),
    text(4, "failure_message_prefix"),
    text(5, "log_source"),
]);

static TRY: Message = Message(&[one(1, "action", &ACTION), text(2, "log_source")]);

/// `ParallelAction`, `SerialAction`, `CodependentAction`.
static SEVERAL: Message = Message(&[many(1, "actions", &ACTION), text(2, "log_source")]);

/// `SecurityGroupRule`.
pub static EGRESS: Message = Message(&[
    text(1, "protocol"),
    texts(2, "destinations"),
    numbers(3, "ports"),
    one(4, "port_range", &PORT_RANGE),
    one(5, "icmp_info", &ICMP),
    truth(6, "log"),
    texts(7, "annotations"),
]);

static PORT_RANGE: Message = Message(&[unsigned(1, "start"), unsigned(2, "end")]);
static ICMP: Message = Message(&[signed(1, "type"), signed(2, "code")]);

/// `CachedDependency`.
pub static DEPENDENCY: Message = Message(&[
    text(1, "name"),
    text(2, "from"),
    text(3, "to"),
    text(4, "cache_key"),
    text(5, "log_source"),
    text(6, "checksum_algorithm"),
    text(7, "checksum_value"),
]);

/// `ImageLayer`.
pub static LAYER: Message = Message(&[
    text(1, "name"),
    text(2, "url"),
    text(3, "destination_path"),
    word(4, "layer_type", &["", "SHARED", "EXCLUSIVE"]),
    word(5, "media_type", &["", "TGZ", "TAR", "ZIP"]),
    word(6, "digest_algorithm", &["", "SHA256", "SHA512"]),
    text(7, "digest_value"),
]);

/// `VolumeMount`.
pub static VOLUME: Message = Message(&[
    text(1, "driver"),
    text(3, "container_dir"),
    text(6, "mode"),
    one(7, "shared", &SHARED_DEVICE),
    refused(8, "volume_mounts: dedicated: only shared ones are there"),
]);

static SHARED_DEVICE: Message = Message(&[text(1, "volume_id"), text(2, "mount_config")]);

/// `File`.
pub static FILE: Message = Message(&[text(1, "path"), text(2, "content")]);

/// `Network`.
pub static NETWORK: Message = Message(&[text_map(1, "properties")]);

/// `CertificateProperties`.
pub static CERTIFICATE: Message = Message(&[texts(1, "organizational_unit")]);

/// `LogRateLimit`.
pub static LOG_RATE: Message = Message(&[signed(1, "bytes_per_second")]);

/// `MetricTagValue`.
pub static METRIC_TAG: Message =
    Message(&[text(1, "static"), word(2, "dynamic", &["", "INDEX", "INSTANCE_GUID"])]);

/// `ModificationTag`.
pub static MODIFICATION_TAG: Message = Message(&[text(1, "epoch"), unsigned(2, "index")]);
