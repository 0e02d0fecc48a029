//! What manifests could say until 2019: `inherit`, and attributes at the top that hold for every app
//! below. Both are written out here, so that the rest only knows apps. Pure.

use super::manifest::{APPS_MAX, is_attribute};
use crate::lifecycle::yaml::{Node, Pair, Tree};

/// Lists of which an app has its own behind those that it inherits; any other list is replaced.
const ADDED: [&str; 4] = ["services", "routes", "hosts", "domains"];
/// One of them that an app says itself replaces both.
const BUILDPACKS: [&str; 2] = ["buildpack", "buildpacks"];

/// The file that `top` inherits from, as it says, and the line where it does.
pub fn parent(top: &Node) -> Option<(String, usize)> {
    let pair = top.as_map()?.iter().find(|pair| pair.key == "inherit")?;
    Some((pair.value.as_text()?.to_owned(), pair.line))
}

/// `child` over `base`, which it inherits from in `line`: mistakes of the base are told to be there. Apps
/// of one name become one.
pub fn inherit(mut base: Node, child: Node, line: usize) -> Node {
    move_to(&mut base, line);
    let (Tree::Map(mut below), Tree::Map(above)) = (base.tree, child.tree.clone()) else {
        return child;
    };
    for pair in above.into_iter().filter(|pair| pair.key != "inherit") {
        match below.iter_mut().find(|it| it.key == pair.key) {
            Some(it) if pair.key == "applications" => add_apps(&mut it.value, pair.value),
            _ => put(&mut below, pair),
        }
    }
    Node { tree: Tree::Map(below), ..child }
}

/// Moves what stands at the top for all apps into each of them; without `applications` it is an app. What
/// has an anchor is only kept there for those that name it, as in manifests of today.
pub fn spread(top: &mut Node) {
    let (line, column) = (top.line, top.column);
    let Tree::Map(pairs) = &mut top.tree else { return };
    let is_global = |pair: &Pair| !pair.anchored && is_attribute(&plain(&pair.key));
    let has_apps = pairs.iter().any(|pair| pair.key == "applications");
    let named = pairs.iter().any(|pair| pair.key == "name" && is_global(pair));
    if !has_apps && !named {
        return;
    }
    let (globals, rest): (Vec<Pair>, Vec<Pair>) =
        std::mem::take(pairs).into_iter().partition(is_global);
    *pairs = rest;
    if globals.is_empty() {
        return;
    }
    if !has_apps {
        let app = Node { line, column, tree: Tree::Map(globals) };
        let value = Node { line, column, tree: Tree::List(vec![app]) };
        pairs.push(Pair { key: "applications".into(), line, value, anchored: false });
        return;
    }
    let apps = pairs.iter_mut().find(|pair| pair.key == "applications");
    let Some(Tree::List(apps)) = apps.map(|pair| &mut pair.value.tree) else { return };
    for app in apps.iter_mut().take(APPS_MAX) {
        let Tree::Map(own) = &mut app.tree else { continue };
        // Somebody else tells of it.
        if is_twice(own) {
            continue;
        }
        let mut all = globals.clone();
        std::mem::take(own).into_iter().for_each(|pair| put(&mut all, pair));
        *own = all;
    }
}

/// Apps of a manifest behind those that it inherits.
fn add_apps(below: &mut Node, above: Node) {
    let (Tree::List(items), Tree::List(more)) = (&mut below.tree, &above.tree) else {
        *below = above;
        return;
    };
    for app in more {
        let name = app.get("name").and_then(Node::as_text);
        let same =
            |it: &&mut Node| name.is_some() && it.get("name").and_then(Node::as_text) == name;
        let found = items.iter_mut().find(same);
        match (found.map(|it| &mut it.tree), &app.tree) {
            (Some(Tree::Map(own)), Tree::Map(pairs)) => {
                pairs.iter().for_each(|pair| put(own, pair.clone()));
            }
            _ => items.push(app.clone()),
        }
    }
}

/// One attribute over those that are there: maps are merged, some lists get longer, anything else is
/// replaced.
fn put(all: &mut Vec<Pair>, pair: Pair) {
    let key = plain(&pair.key);
    if BUILDPACKS.contains(&&*key) {
        all.retain(|it| !BUILDPACKS.contains(&&*plain(&it.key)));
    }
    match all.iter_mut().find(|it| plain(&it.key) == key) {
        None => all.push(pair),
        Some(it) => match (&mut it.value.tree, pair.value.tree) {
            (Tree::Map(below), Tree::Map(above)) => {
                above.into_iter().for_each(|pair| merge(below, pair));
            }
            (Tree::List(below), Tree::List(above)) if ADDED.contains(&&*key) => {
                below.extend(above);
            }
            (_, tree) => {
                let value = Node { tree, ..pair.value };
                *it = Pair { key: pair.key, line: pair.line, value, anchored: pair.anchored };
            }
        },
    }
}

/// A pair of a map, such as `env`, over what is there.
fn merge(below: &mut Vec<Pair>, pair: Pair) {
    match below.iter_mut().find(|it| it.key == pair.key) {
        Some(it) => *it = pair,
        None => below.push(pair),
    }
}

/// Whether a key is there with hyphens and with underscores.
fn is_twice(pairs: &[Pair]) -> bool {
    let keys: Vec<String> = pairs.iter().map(|pair| plain(&pair.key)).collect();
    keys.iter().enumerate().any(|(at, key)| keys[..at].contains(key))
}

/// A key as it is written today.
fn plain(key: &str) -> String {
    key.replace('_', "-")
}

fn move_to(node: &mut Node, line: usize) {
    (node.line, node.column) = (line, 1);
    match &mut node.tree {
        Tree::Null | Tree::Text { .. } => {}
        Tree::List(items) => items.iter_mut().for_each(|item| move_to(item, line)),
        Tree::Map(pairs) => pairs.iter_mut().for_each(|pair| {
            pair.line = line;
            move_to(&mut pair.value, line);
        }),
    }
}
