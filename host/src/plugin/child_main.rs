//! The plugin's process: the command `taskbay plugin-child`.
//!
//! It has no runtime of its own. The main thread reads the host's messages and calls the plugin; the plugin's threads
//! answer through an outbox. When the host is gone, the process exits at once.

use std::{
    fs::File,
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
    process::{Resource, Rlimit, Signal},
};
use taskbay_abi::{INIT_CALL, LEVEL_DEBUG, STATUS_ERROR, STATUS_OK};

use super::{
    LaunchError,
    bounds::{is_used_up, limit_memory},
    child_outbox::{Outbox, PATIENCE},
    frames::{self, Frame, FrameReader, Hello, MAX_FRAME, PROTOCOL, kind, put_text},
    host_table::{AddJobReply, End, LogLine, PluginHost},
    libc_calls::{close_inherited, exit_now, outlive_stop_signals},
    loader::{LoadedPlugin, MappedPlugin},
};

/// The maximum length in bytes of a job's error message for the host, which stores only the beginning.
const LONGEST_MESSAGE: usize = 1 << 20;

/// The maximum length in bytes of the detail of a job's end, which would be useless if truncated.
const LONGEST_DETAIL: usize = MAX_FRAME / 2;

/// Runs a plugin for the host that started this process.
pub fn plugin_child() -> ExitCode {
    match serve() {
        Ok(never) => match never {},
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "taskbay plugin-child: {error}. The host starts this command by itself; it is of no use to people."
            );
            ExitCode::FAILURE
        }
    }
}

enum Never {}

fn serve() -> io::Result<Never> {
    close_inherited();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    outlive_stop_signals();
    let mut socket = take_socket()?;
    let image = receive_image(&socket)?;
    let mut reader = FrameReader::new();
    let hello = receive_hello(&mut socket, &mut reader)?;
    if let Err(error) = keep_in_bounds(&hello) {
        return refuse_at_once(&mut socket, &error);
    }

    // Each step is reported before the next begins, so the host knows the step of a crash. From here on, memory may run out.
    send_at_once(&mut socket, kind::LOADING, |_| ())?;
    let outbox = match limit_memory(hello.memory_limit).and_then(|()| start_writer(&socket)) {
        Ok(outbox) => outbox,
        Err(error) => {
            let error = LaunchError::Process(error.to_string());
            return refuse_at_once(&mut socket, &or_memory(error, hello.memory_limit));
        }
    };
    let memory_limit = hello.memory_limit;
    let host = Arc::new(Host { outbox: Arc::clone(&outbox), requests: Mutex::default(), memory_limit });
    let mapped = match MappedPlugin::map(image) {
        Ok(mapped) => mapped,
        Err(error) => refuse(&outbox, &or_memory(error, memory_limit)),
    };
    outbox.send(kind::MANIFEST, 0, |body| put_json(body, mapped.manifest()));
    outbox.flush();
    if hello.check_only {
        exit_now(0);
    }
    Outbox::this_thread_begins_jobs();
    let plugin = Arc::new(mapped.init(Arc::clone(&host) as _, hello.max_level, &hello.settings));
    loop {
        outbox.expect(reader.count(kind::RUN));
        while let Some(frame) = reader.next()? {
            follow(frame, &plugin, &host)?;
        }
        if outbox.all_begun() {
            // New jobs must not delay the ends of earlier ones further.
            let more = readable_within(&socket, PATIENCE);
            outbox.release(!more);
        }
        match socket.read(reader.space())? {
            // The host is gone or has ordered the end; the process exits whatever the plugin is doing.
            0 => exit_now(1),
            count => reader.filled(count),
        }
    }
}

fn readable_within(socket: &UnixStream, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)).is_ok_and(|count| count > 0)
}

/// Moves the socket away from standard input, where the plugin's own child processes would inherit it.
fn take_socket() -> io::Result<UnixStream> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let socket = UnixStream::from(socket);
    socket.peer_addr().map_err(|_| io::Error::other("the standard input is not a socket"))?;
    Ok(socket)
}

/// The first byte carries the sealed image.
fn receive_image(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("no plugin was handed over"))
}

fn receive_hello(socket: &mut UnixStream, reader: &mut FrameReader) -> io::Result<Hello> {
    loop {
        if let Some(frame) = reader.next()? {
            if frame.kind != kind::HELLO || frame.call != PROTOCOL {
                return Err(io::Error::other("the host is of another version than this program"));
            }
            return Ok(serde_json::from_slice(frame.body.rest())?);
        }
        match socket.read(reader.space())? {
            0 => return Err(io::Error::other("the host went away")),
            count => reader.filled(count),
        }
    }
}

fn keep_in_bounds(hello: &Hello) -> Result<(), LaunchError> {
    let failed = |error: io::Error| LaunchError::Process(error.to_string());
    // When the machine runs out of memory, the kernel should kill the plugin before the host. Some sandboxes forbid this.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    // Programs started by the plugin must not gain privileges.
    rustix::thread::set_no_new_privs(true).map_err(|error| failed(error.into()))?;
    hello.bounds.keep().map_err(|error| LaunchError::Setting {
        key: "open_files, processes or user".to_owned(),
        reason: format!(
            "open_files, processes or user, one of its settings, cannot be kept to ({error}): this host may not have so many \
             itself, or not change users"
        ),
    })?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(error.into()))?;
    // If the parent died before the signal for its death was set, another process is the parent now.
    if rustix::process::getppid().is_none_or(|parent| parent.as_raw_nonzero().get().cast_unsigned() != hello.parent) {
        return Err(failed(io::Error::other("the host went away")));
    }
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| failed(error.into()))?;
    if hello.max_level >= LEVEL_DEBUG {
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(io::stderr)
            .log_internal_errors(false)
            .without_time()
            .with_ansi(false)
            .try_init();
    }
    Ok(())
}

/// Starts the thread that writes to the host.
fn start_writer(socket: &UnixStream) -> io::Result<Arc<Outbox>> {
    let outbox = Arc::new(Outbox::new(socket.try_clone()?));
    let source = Arc::clone(&outbox);
    thread::Builder::new().name("taskbay-writer".to_owned()).spawn(move || source.write_what_is_handed_over())?;
    Ok(outbox)
}

/// An error about the memory limit, if the limit caused the failure.
fn or_memory(error: LaunchError, memory_limit: Option<u64>) -> LaunchError {
    match (error, memory_limit) {
        (LaunchError::Process(said) | LaunchError::Map(said) | LaunchError::StartFailed(said), Some(limit))
            if is_used_up("self", limit) =>
        {
            LaunchError::memory_limit(limit, &said)
        }
        (error, _) => error,
    }
}

/// Writes a frame before the outbox exists.
fn send_at_once(socket: &mut UnixStream, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let mut bytes = Vec::new();
    frames::push(&mut bytes, kind, 0, body).map_err(|_| io::ErrorKind::OutOfMemory)?;
    socket.write_all(&bytes)
}

fn refuse_at_once(socket: &mut UnixStream, error: &LaunchError) -> io::Result<Never> {
    send_at_once(socket, kind::REFUSED, |body| put_json(body, error))?;
    exit_now(0)
}

fn refuse(outbox: &Outbox, error: &LaunchError) -> ! {
    outbox.send(kind::REFUSED, 0, |body| put_json(body, error));
    outbox.flush();
    exit_now(0)
}

fn follow(mut frame: Frame<'_>, plugin: &Arc<LoadedPlugin>, host: &Host) -> io::Result<()> {
    match frame.kind {
        kind::RUN => {
            let (task, timeout_ms, job) = frames::take_job(&mut frame.body)?;
            let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
            plugin.start(task, &job, timeout, frame.call, &|| {});
        }
        kind::CANCEL => plugin.cancel(frame.call, frame.body.u32()?),
        kind::JOB_ADDED => {
            let (ids, reason) = (frame.body.text()?, frame.body.text()?);
            if let Some(reply) = host.take_request(frame.call) {
                reply.deliver(ids.ok_or(reason.unwrap_or_default()));
            }
        }
        kind::SHUT_DOWN => {
            let limit = Duration::from_millis(frame.body.u64()?);
            let (plugin, outbox) = (Arc::clone(plugin), Arc::clone(&host.outbox));
            // On a separate thread, so that this one still detects the host's end.
            thread::Builder::new().name("taskbay-ending".to_owned()).spawn(move || {
                plugin.shutdown(limit);
                outbox.flush();
                exit_now(0);
            })?;
        }
        _ => return Err(io::Error::other("the host sent an unknown message")),
    }
    Ok(())
}

/// The functions for the plugin; forwards everything to the host.
#[derive(Debug)]
struct Host {
    outbox: Arc<Outbox>,
    requests: Mutex<Requests>,
    memory_limit: Option<u64>,
}

#[derive(Debug, Default)]
struct Requests {
    last: u64,
    open: std::collections::HashMap<u64, AddJobReply>,
}

impl Host {
    fn take_request(&self, request: u64) -> Option<AddJobReply> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&request)
    }
}

/// Truncates a text to a number of bytes.
fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl PluginHost for Host {
    fn finished(&self, call: u64, end: End<'_>) {
        if call == INIT_CALL {
            if end.status == STATUS_OK {
                self.outbox.send(kind::READY, 0, |_| ());
            } else {
                let error = or_memory(LaunchError::of_start_up(end.status, end.message), self.memory_limit);
                self.outbox.send(kind::REFUSED, 0, |body| put_json(body, &error));
            }
            return;
        }
        let message = end.message.map(|message| beginning(message, LONGEST_MESSAGE));
        let too_long;
        let (status, message, detail) = match end.detail {
            Some(detail) if detail.len() > LONGEST_DETAIL => {
                too_long = format!(
                    "what the task says of the items that failed is {} bytes long, and at most {LONGEST_DETAIL} can be handed \
                     to the host; give it fewer items at once",
                    detail.len()
                );
                (STATUS_ERROR, Some(&*too_long), None)
            }
            detail => (end.status, message, detail),
        };
        self.outbox.send_end(kind::ENDED, call, |body| {
            body.extend_from_slice(&status.to_le_bytes());
            put_text(body, message);
            put_text(body, detail);
        });
    }

    fn log(&self, call: u64, line: LogLine<'_>) {
        self.outbox.wait_for_room();
        self.outbox.send(kind::LOG, call, |body| {
            body.extend_from_slice(&line.level.to_le_bytes());
            for text in [Some(line.target), Some(line.message), line.fields] {
                put_text(body, text);
            }
        });
    }

    fn add_job(&self, call: u64, spec: &str, reply: AddJobReply) {
        let request = {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.last += 1;
            let request = requests.last;
            requests.open.insert(request, reply);
            request
        };
        let sent = self.outbox.send(kind::ADD_JOB, call, |body| {
            body.extend_from_slice(&request.to_le_bytes());
            put_text(body, Some(spec));
        });
        if !sent && let Some(reply) = self.take_request(request) {
            reply.deliver(Err("the jobs to add are larger than the limit of 64 MiB per request"));
        }
    }
}

fn put_json(body: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(body, value).expect("these types have no maps with keys that JSON cannot hold");
}
