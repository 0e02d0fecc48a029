//! The programs that run inside containers, each as a real process in a directory of its own.

mod builder;
mod buildpacks;
mod custom;
mod docker;
mod launcher;
mod place;
mod tar;
mod trees;
