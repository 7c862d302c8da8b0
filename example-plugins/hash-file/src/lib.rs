//! Hashes files: work that keeps a processor busy, as a plain `fn` on the plugin's blocking pool.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use taskbay_plugin::prelude::*;

#[derive(Deserialize)]
struct HashFile {
    file: PathBuf,
}

/// Writes the SHA-256 of a file beside it, as `sha256sum` does.
#[task]
fn hash_file(ctx: Context, HashFile { file }: HashFile) -> TaskResult {
    let digest = digest(&file, || ctx.is_cancelled()).map_err(|error| error.context(file.display()))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let sum = PathBuf::from(format!("{}.sha256", file.display()));
    std::fs::write(&sum, format!("{digest}  {name}\n"))?;
    info!(file = %file.display(), digest, "hashed");
    Ok(())
}

/// Looks between two reads whether it should stop: a plain `fn` cannot be stopped from outside.
fn digest(file: &Path, stop: impl Fn() -> bool) -> Result<String, TaskError> {
    let mut file = File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        if stop() {
            return Err(TaskError::new("stopped half-way"));
        }
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&buffer[..read]),
        }
    }
}

plugin!(hash_file);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_has_the_digest_that_the_world_knows() {
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(Path::new("/dev/null"), || false).unwrap(), known);
        assert!(digest(Path::new("/dev/zero"), || true).is_err());
    }
}
