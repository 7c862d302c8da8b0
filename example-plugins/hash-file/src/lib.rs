//! Computes checksums: work for the processor, in a plain function, which runs on a thread of its own.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Read,
    path::PathBuf,
};

use sha2::{Digest, Sha256};
use taskbay_plugin::prelude::*;

#[derive(Deserialize)]
struct HashFile {
    path: PathBuf,
}

/// Writes the SHA-256 of a file beside it, in the format of `sha256sum`.
#[task(timeout = "10m")]
fn hash_file(ctx: Context, job: HashFile) -> TaskResult {
    let path = job.path.display();
    let name = job.path.file_name().ok_or_else(|| TaskError::discard(format_args!("`{path}` names no file")))?;
    let mut file = File::open(&job.path).or_fail(format_args!("cannot open {path}"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer).or_fail(format_args!("cannot read {path}"))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        // Nothing can stop a plain function from outside, so one that may run long looks for itself.
        if ctx.is_cancelled() {
            bail!("cancelled after {bytes} bytes of {path}");
        }
    }
    let mut line = String::new();
    hash.finalize().iter().try_for_each(|byte| write!(line, "{byte:02x}"))?;
    writeln!(line, "  {}", name.to_string_lossy())?;
    let mut target = job.path.clone().into_os_string();
    target.push(".sha256");
    fs::write(&target, line).or_fail(format_args!("cannot write {}", PathBuf::from(&target).display()))?;
    info!(%path, bytes, "hashed");
    Ok(())
}

plugin!(hash_file);

#[cfg(test)]
mod tests {
    use taskbay_plugin::testing::TestJob;

    use super::*;

    #[test]
    fn the_sum_is_what_sha256sum_would_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc.txt");
        fs::write(&path, "abc").unwrap();
        hash_file(TestJob::new().context(), HashFile { path }).unwrap();
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc.txt\n";
        assert_eq!(fs::read_to_string(folder.path().join("abc.txt.sha256")).unwrap(), sum);
    }

    #[test]
    fn it_stops_when_told_to_and_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc.txt");
        fs::write(&path, "abc").unwrap();
        let job = TestJob::new();
        job.cancel();
        let error = hash_file(job.context(), HashFile { path }).unwrap_err();
        assert!(error.to_string().starts_with("cancelled after 3 bytes"));
        assert!(!folder.path().join("abc.txt.sha256").exists());
    }
}
