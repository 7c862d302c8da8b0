//! What the task map says, which nobody hears here.

#[derive(Debug, Clone)]
pub struct PluginBuild {
    pub plugin: String,
    pub build: u32,
}

#[derive(Debug, Clone)]
pub enum Event {
    TasksHidden { build: PluginBuild, file: String, tasks: Vec<String> },
    TaskMapPublished { epoch: u64, tasks: usize, added: Vec<String>, removed: Vec<String> },
}
