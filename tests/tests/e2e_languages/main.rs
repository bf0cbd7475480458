//! Every language that a plugin may be written in: its example on the whole path, and a new project of it from the first
//! command to a webhook.

mod c;
mod check;
mod readme;
mod go;
mod go_guest;
mod python;
mod python_guest;
mod js;
mod js_guest;
mod rust;
mod zig;
