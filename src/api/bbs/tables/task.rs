//! Tasks.

use super::super::proto::{
    Message, flat, many, map, one, signed, text, texts, truth, unsigned, word,
};
use super::{
    ACTION, CERTIFICATE, DEPENDENCY, EGRESS, ENV, FILE, LAYER, LOG_RATE, METRIC_TAG, NETWORK,
    VOLUME,
};

/// `TaskDefinition`.
pub static DEFINITION: Message = Message(&[
    text(1, "rootfs"),
    many(2, "env", &ENV),
    one(3, "action", &ACTION),
    signed(4, "disk_mb"),
    signed(5, "memory_mb"),
    unsigned(6, "cpu_weight"),
    truth(7, "privileged"),
    text(8, "log_source"),
    text(9, "log_guid"),
    text(10, "metrics_guid"),
    text(11, "result_file"),
    text(12, "completion_callback_url"),
    text(13, "annotation"),
    many(14, "egress_rules", &EGRESS),
    many(15, "cached_dependencies", &DEPENDENCY),
    text(16, "legacy_download_user"),
    text(17, "trusted_system_certificates_path"),
    many(18, "volume_mounts", &VOLUME),
    one(19, "network", &NETWORK),
    texts(20, "placement_tags"),
    signed(21, "max_pids"),
    one(22, "certificate_properties", &CERTIFICATE),
    text(23, "image_username"),
    text(24, "image_password"),
    many(25, "image_layers", &LAYER),
    one(26, "log_rate_limit", &LOG_RATE),
    map(27, "metric_tags", &METRIC_TAG),
    many(28, "volume_mounted_files", &FILE),
]);

/// `Task`.
pub static TASK: Message = Message(&[
    flat(1, &DEFINITION),
    text(2, "task_guid"),
    text(3, "domain"),
    signed(4, "created_at"),
    signed(5, "updated_at"),
    signed(6, "first_completed_at"),
    word(7, "state", &["", "PENDING", "RUNNING", "COMPLETED", "RESOLVING"]),
    text(8, "cell_id"),
    text(9, "result"),
    truth(10, "failed"),
    text(11, "failure_reason"),
    signed(12, "rejection_count"),
    text(13, "rejection_reason"),
]);

/// `DesireTaskRequest`.
pub static DESIRE: Message =
    Message(&[flat(1, &DEFINITION), text(2, "task_guid"), text(3, "domain")]);
