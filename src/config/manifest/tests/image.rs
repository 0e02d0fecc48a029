//! The `[image]` table.

use super::{good, problems};
use crate::model::manifest::{Check, Image};

#[test]
fn an_image_stands_instead_of_source_and_build() {
    let it = good("name = \"t\"\n[image]\nref = \"docker:///tutum/tomcat#8.0\"\n");
    let name = "tutum/tomcat:8.0".parse().expect("a name");
    assert_eq!(it.image, Some(Image::Ref(name)));
    assert_eq!((it.source.as_os_str().len(), it.run.user.as_str()), (0, ""));
    // The image says which port.
    assert_eq!((it.ports.len(), it.ports[0].container, it.ports[0].publish), (1, 0, None));
    let web = &it.processes["web"];
    assert_eq!(
        (web.ports.as_slice(), &web.health.check),
        (&["web".to_owned()][..], &Check::Port { port: 0 })
    );

    let it = good(
        "name = \"t\"\nimage.archive = \"app.tar\"\nport = [{ publish = 80 }]\nrun.user = \"1:2\"\n",
    );
    assert_eq!(it.image, Some(Image::Archive("/etc/terrarium/apps.d/app.tar".into())));
    assert_eq!((it.ports[0].container, it.ports[0].publish, &*it.run.user), (0, Some(80), "1:2"));

    let it = good("name = \"t\"\nimage.ref = \"a\"\n[process.web]\nports = []\n");
    assert_eq!((it.ports.len(), &it.processes["web"].health.check), (0, &Check::Process));
}

/// Who adds a worker to an image means one beside what the image runs.
#[test]
fn a_further_process_leaves_web_to_the_image() {
    let it = good("name = \"t\"\nimage.ref = \"a\"\n[process.work]\ncommand = \"x\"\n");
    assert_eq!(it.processes.keys().collect::<Vec<_>>(), ["web", "work"]);
    assert_eq!((it.processes["web"].ports.len(), it.ports.len()), (1, 1));
    assert_eq!(it.processes["web"].health.check, Check::Port { port: 0 });
    assert_eq!(it.processes["work"].health.check, Check::Process);
    let text =
        "name = \"t\"\nimage.ref = \"a\"\nrun.command = \"y\"\n[process.work]\ncommand = \"x\"\n";
    assert_eq!(good(text).run.command.as_deref(), Some("y"));
    // Who does not want it says so.
    let text = "name = \"t\"\nimage.ref = \"a\"\nprocess = { web = { instances = 0 }, work = { command = \"x\" } }\n";
    assert_eq!((good(text).processes["web"].instances, good(text).processes.len()), (0, 2));
}

#[test]
fn mistakes_of_an_image_are_named_with_their_place() {
    for (text, expected) in [
        ("[image]", "2:1 `ref` is missing in [image] | add ref ="),
        ("image = \"x\"", "2:9 `image` must be a table, not a string"),
        ("[image]\nref = \"a\"\narchive = \"b\"", "4:11 an image has `ref` or `archive`, not both"),
        ("[image]\nref = \"A b\"", "3:7 `A b` names no image: "),
        ("[image]\nref = 1", "3:7 `image.ref` must be a string"),
        ("[image]\narchive = \"\"", "3:11 `image.archive` is empty"),
        (
            "[image]\nreff = \"a\"\nref = \"a\"",
            "3:1 unknown key `reff` in [image] | did you mean `ref`?",
        ),
        ("build = {}\n[image]\nref = \"a\"", "2:9 `build` and `image` do not go together"),
        (
            "[image]\nref = \"a\"\n[health]\nport = 80",
            "5:8 there is no port `80` | declared: \"web\" (the image's own)",
        ),
    ] {
        let found = problems(&format!("name = \"t\"\n{text}\n"));
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].starts_with(expected), "{text}\n{found:#?}");
    }
}
