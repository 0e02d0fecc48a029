//! A staging as a Task.

use super::parts::{
    Archive, CERTIFICATES, VCAP, archives, attempt, env, filled, parallel, run, serial, tags,
    timeout, told,
};
use super::{Form, NoRecipe, Site};
use crate::bridge::request::{BuildpackData, DockerData, Pack, Staging, Variable, read};
use crate::image::registry::settings::Settings;
use crate::unit::escape::escaped;
use crate::unit::{ImageRef, xxh64_hex};
use serde_json::{Value, json};

/// How long a staging may take of which nothing is said, in seconds.
const TIMEOUT: u64 = 900;
/// Where the result is; and that of an image.
const RESULT: &str = "/tmp/result.json";
const DOCKER_RESULT: &str = "/tmp/docker-result/result.json";
/// A buildpack that the builder fetches itself.
const CUSTOM: &str = "custom";
/// What a staging weighs.
const WEIGHT: u64 = 50;

/// The Task that `request` asks for. `Err`: what is missing.
pub fn staging(site: &Site, guid: &str, request: &Staging) -> Result<Value, NoRecipe> {
    if request.app_id.is_empty() {
        return Err(NoRecipe::new("missing app id"));
    }
    let missing = || NoRecipe::new("missing lifecycle data");
    let data = request.lifecycle_data.clone().ok_or_else(missing)?;
    let (rootfs, result, dependencies, action) = match request.lifecycle.as_str() {
        "docker" => docker(site, request, &read(data).map_err(NoRecipe)?)?,
        _ => buildpack(site, request, &read(data).map_err(NoRecipe)?)?,
    };
    let annotation = filled(json!({
        "lifecycle": request.lifecycle,
        "completion_callback": request.completion_callback,
    }));
    let mut task = json!({
        "task_guid": guid,
        "domain": crate::model::task::STAGING,
        "rootfs": rootfs,
        "action": timeout(seconds(request), action),
        "env": env(&[], &[("LANG", "en_US.UTF-8")]),
        "memory_mb": request.memory_mb,
        "disk_mb": request.disk_mb,
        "cpu_weight": WEIGHT,
        "privileged": false,
        "log_guid": request.log_guid,
        "log_source": "STG",
        "result_file": result,
        "completion_callback_url": format!("{}/v1/staging/{guid}/completed", site.base),
        "annotation": annotation.to_string(),
        "egress_rules": request.egress_rules,
        "trusted_system_certificates_path": CERTIFICATES,
    });
    let more = json!({
        "cached_dependencies": dependencies,
        "placement_tags": tags(&request.isolation_segment),
    });
    extend(&mut task, filled(more));
    Ok(task)
}

/// Rootfs, result file, dependencies, action.
type Made = (String, &'static str, Vec<Value>, Value);

fn extend(task: &mut Value, more: Value) {
    if let (Some(task), Value::Object(more)) = (task.as_object_mut(), more) {
        task.extend(more);
    }
}

fn seconds(request: &Staging) -> u64 {
    u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).unwrap_or(TIMEOUT)
}

fn buildpack(site: &Site, request: &Staging, data: &BuildpackData) -> Result<Made, NoRecipe> {
    if data.app_bits_download_uri.is_empty() {
        return Err(NoRecipe::new("missing app bits download uri"));
    }
    let lifecycle = Archive::buildpack_lifecycle(site, &data.stack)
        .ok_or_else(|| NoRecipe::new("no compiler defined for requested stack"))?;
    let packs: Vec<Archive> =
        data.buildpacks.iter().filter(|pack| pack.name != CUSTOM).map(archive).collect();
    let cache = cache(data);
    let app = json!({ "download": {
        "artifact": "app package",
        "from": data.app_bits_download_uri,
        "to": "/tmp/app",
        "user": VCAP,
    }});
    let mut steps = vec![app];
    let mut dependencies = Vec::new();
    match site.form {
        Form::Mounted => {
            let all: Vec<Archive> = [lifecycle].into_iter().chain(packs).collect();
            (dependencies, _) = archives(Form::Mounted, &all, VCAP);
            steps.extend(cache.map(attempt));
        }
        Form::Downloaded => steps.push(fetched(data, &lifecycle, &packs, cache)),
    }
    let texts = ["Staging...", "Staging complete", "Staging failed"];
    steps.push(told(json!({ "run": builder(request, data) }), texts));
    steps.push(uploads(site, request, data));
    Ok((format!("preloaded:{}", data.stack), RESULT, dependencies, serial(steps)))
}

fn archive(pack: &Pack) -> Archive {
    Archive {
        name: pack.name.clone(),
        from: pack.url.clone(),
        to: format!("/tmp/buildpacks/{}", xxh64_hex(&pack.key)),
        cache_key: pack.key.clone(),
    }
}

/// The download of the cache that the staging before has left.
fn cache(data: &BuildpackData) -> Option<Value> {
    let from = &data.build_artifacts_cache_download_uri;
    (!from.is_empty()).then(|| {
        json!({ "download": {
            "artifact": "build artifacts cache",
            "from": from,
            "to": "/tmp/cache",
            "user": VCAP,
        }})
    })
}

/// Programs, buildpacks and cache as downloads, in the words of 2015.
fn fetched(
    data: &BuildpackData,
    lifecycle: &Archive,
    packs: &[Archive],
    cache: Option<Value>,
) -> Value {
    let names: Vec<&str> = packs.iter().map(|pack| pack.name.as_str()).collect();
    let buildpacks = match names.is_empty() {
        true => None,
        false => Some(format!("buildpacks ({})", names.join(", "))),
    };
    let with_cache = cache.is_some().then(|| "build artifacts cache".to_owned());
    let what: Vec<String> = buildpacks.into_iter().chain(with_cache).collect();
    let detects = !data.buildpacks.iter().any(|pack| pack.name == CUSTOM || pack.skip_detect);
    let intro = match detects {
        true => {
            "No buildpack specified; fetching standard buildpacks to detect and build your \
             application.\n"
        }
        false => "",
    };
    let start = match what.is_empty() {
        true => intro.trim_end().to_owned(),
        false => format!("{intro}Downloading {}...", what.join(", ")),
    };
    let programs = told(lifecycle.download(VCAP), ["", "", "Failed to set up staging environment"]);
    let packs = packs.iter().map(|pack| pack.download(VCAP));
    let all = [programs].into_iter().chain(packs).chain(cache.map(attempt));
    told(
        parallel(all.collect()),
        [&start, "Downloaded buildpacks", "Downloading buildpacks failed"],
    )
}

fn builder(request: &Staging, data: &BuildpackData) -> Value {
    let order: Vec<&str> = data.buildpacks.iter().map(|pack| pack.key.as_str()).collect();
    // More than one that need not be asked are a chain.
    let skip = !data.buildpacks.is_empty() && data.buildpacks.iter().all(|pack| pack.skip_detect);
    let flags = [
        "-buildArtifactsCacheDir=/tmp/cache".to_owned(),
        "-buildDir=/tmp/app".into(),
        format!("-buildpackOrder={}", order.join(",")),
        "-buildpacksDir=/tmp/buildpacks".into(),
        "-buildpacksDownloadDir=/tmp/buildpackdownloads".into(),
        "-outputBuildArtifactsCache=/tmp/output-cache".into(),
        "-outputDroplet=/tmp/droplet".into(),
        format!("-outputMetadata={RESULT}"),
        "-skipCertVerify=false".into(),
        format!("-skipDetect={skip}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut run = run("/tmp/lifecycle/builder", &flags, VCAP, request.file_descriptors);
    let stack = [("CF_STACK", data.stack.as_str())];
    run.insert("env".into(), env(&request.environment, &stack).into());
    Value::Object(run)
}

fn uploads(site: &Site, request: &Staging, data: &BuildpackData) -> Value {
    let at = |what: &str, key: &str, uri: &str| {
        let (app, seconds) = (escaped(&request.app_id), seconds(request));
        format!("{}/v1/{what}/{app}?{key}={}&timeout={seconds}", site.base, escaped(uri))
    };
    let droplet = json!({ "upload": {
        "artifact": "droplet",
        "from": "/tmp/droplet",
        "to": at("droplet", "cc-droplet-upload-uri", &data.droplet_upload_uri),
        "user": VCAP,
    }});
    let cache = json!({ "upload": {
        "artifact": "build artifacts cache",
        "from": "/tmp/output-cache",
        "to": at(
            "build_artifacts",
            "cc-build-artifacts-upload-uri",
            &data.build_artifacts_cache_upload_uri,
        ),
        "user": VCAP,
    }});
    let texts =
        ["Uploading droplet, build artifacts cache...", "Uploading complete", "Uploading failed"];
    told(parallel(vec![droplet, attempt(cache)]), texts)
}

fn docker(site: &Site, request: &Staging, data: &DockerData) -> Result<Made, NoRecipe> {
    if data.docker_image.is_empty() {
        return Err(NoRecipe::new("missing docker image download url"));
    }
    if data.docker_user.is_empty() != data.docker_password.is_empty() {
        return Err(NoRecipe::new("missing docker credentials"));
    }
    let lifecycle = Archive::docker_lifecycle(site);
    let registries = insecure(site, &data.docker_image).join(",");
    let mut args =
        vec!["-outputMetadataJSONFilename", DOCKER_RESULT, "-dockerRef", &data.docker_image];
    if !registries.is_empty() {
        args.extend(["-insecureDockerRegistries", &registries]);
    }
    if !data.docker_user.is_empty() {
        args.extend(["-dockerUser", &data.docker_user, "-dockerPassword", &data.docker_password]);
    }
    let mut run = run("/tmp/lifecycle/builder", &args, VCAP, request.file_descriptors);
    let given: &[Variable] = &request.environment;
    run.insert("env".into(), env(given, &[]).into());
    let staged = told(json!({ "run": run }), ["Staging...", "Staging Complete", "Staging Failed"]);
    let (dependencies, steps) = match site.form {
        Form::Mounted => (vec![lifecycle.dependency()], vec![staged]),
        Form::Downloaded => {
            let texts = ["", "", "Failed to set up docker environment"];
            (Vec::new(), vec![told(lifecycle.download(VCAP), texts), staged])
        }
    };
    Ok((format!("preloaded:{}", site.docker_stack), DOCKER_RESULT, dependencies, serial(steps)))
}

/// The registries that need no TLS, as the builder takes them: `host:port`. The box names them also by
/// host alone and by network: of these, the image's own.
fn insecure(site: &Site, image: &str) -> Vec<String> {
    let has_port = |name: &&String| name.rsplit_once(':').is_some_and(|(_, it)| is_port(it));
    let named = site.insecure_registries.iter().filter(has_port).cloned();
    let mut all: Vec<String> = named.collect();
    let insecure = site.insecure_registries.iter().filter_map(|text| text.parse().ok()).collect();
    let box_says = Settings { insecure, ..Settings::default() };
    let image = image.parse::<ImageRef>().ok();
    if let Some(host) = image.as_ref().and_then(ImageRef::host)
        && box_says.is_insecure(host)
    {
        let own = match host.rsplit_once(':') {
            Some((_, port)) if is_port(port) => host.to_owned(),
            _ => format!("{host}:443"),
        };
        if !all.contains(&own) {
            all.push(own);
        }
    }
    all
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}
