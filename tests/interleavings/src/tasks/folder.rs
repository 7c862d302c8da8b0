//! A tasks folder with builds that need no file.

use std::{collections::BTreeMap, sync::Arc};

use super::task_map::LiveTaskMap;
use crate::{plugin::Generation, sync::Mutex};

/// The folder, and the map of its tasks.
#[derive(Debug, Default)]
pub struct Folder {
    map: LiveTaskMap,
    files: Mutex<BTreeMap<String, Arc<Generation>>>,
}

impl Folder {
    /// A new build comes into a file's place, as in `TasksFolder::publish`: first the map, and then the old build can go, for
    /// which the caller has to see to it that it does.
    pub fn serve(&self, file: &str, generation: &Arc<Generation>) -> Option<Arc<Generation>> {
        let mut files = self.files.lock().expect("nobody panics");
        let before = files.insert(file.to_owned(), Arc::clone(generation));
        self.put_in_force(&files);
        before
    }

    /// Looks again which builds take jobs.
    pub fn look_again(&self) {
        self.put_in_force(&self.files.lock().expect("nobody panics"));
    }

    fn put_in_force(&self, files: &BTreeMap<String, Arc<Generation>>) {
        drop(self.map.put_in_force(files.iter().map(|(file, generation)| (file.as_str(), generation))));
    }

    /// A job of a task, as a slot runs it. The error is why it goes back.
    pub fn run(&self, task: &str) -> Result<(), &'static str> {
        let mut refused = None;
        loop {
            let task = self.map.find(task, refused.as_ref())?;
            if task.generation.run() {
                return Ok(());
            }
            refused = Some(task);
        }
    }

    /// Publishes a map, and gives its number.
    pub fn publish(&self) -> u64 {
        self.map.publish(BTreeMap::new()).epoch()
    }

    /// Follows the publications until one is the last that there is to be; every map that it hears of is there.
    pub fn follow(&self, last: u64) {
        let mut heard = self.map.subscribe();
        loop {
            let told = *heard.borrow();
            assert!(self.map.load().epoch() >= told, "a map is told of before it can be seen");
            if told == last {
                return;
            }
            shuttle::future::block_on(heard.changed()).expect("the map is there");
        }
    }
}
