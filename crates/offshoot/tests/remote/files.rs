//! Files that are opened in one context and used in another.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use offshoot::prelude::*;
use offshoot::{FailureKind, RemoteErrorKind, WorkerLimits, channel};
use tempfile::TempDir;

use crate::{Check, local, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("a_file_that_is_open_here_is_read_and_written_by_a_function_elsewhere", used_there),
    ("a_file_is_read_on_and_on_whole_and_in_order_whatever_the_size_of_the_pieces", read_on),
    ("a_file_that_a_function_opened_is_used_by_its_caller_and_keeps_its_worker", opened_there),
    ("a_file_is_handed_on_and_on_and_back_to_where_it_is_open", handed_on),
    ("s9_a_file_elsewhere_allows_what_it_was_opened_for", as_opened),
    ("what_a_write_has_returned_from_is_in_the_file", in_the_file),
    ("r6_a_file_whose_context_is_lost_is_an_error_and_no_end", lost),
    ("a_file_is_serialized_in_calls_alone_and_leaves_no_thread", elsewhere),
];

/// A folder for one check, empty; gone with it, also when the check fails.
fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect()
}

fn open(path: &std::path::Path) -> File {
    File::options().read(true).write(true).open(path).expect("it is there")
}

/// Its size, its last bytes, and what stands at its beginning when those have been overwritten.
#[offshoot::remote]
fn edit(mut file: RemoteFile) -> io::Result<(u64, Vec<u8>, Vec<u8>)> {
    let size = file.size()?;
    let mut tail = Vec::new();
    file.seek(SeekFrom::End(-5))?;
    file.read_to_end(&mut tail)?;
    file.seek(SeekFrom::Start(3))?;
    file.write_all(b"over there")?;
    // The place is behind what was written.
    file.write_all(b"!")?;
    file.set_size(1000)?;
    file.sync()?;
    file.rewind()?;
    let mut head = vec![0; 20];
    file.read_exact(&mut head)?;
    Ok((size, tail, head))
}

fn used_there() {
    let master = master();
    let (folder, content) = (folder(), bytes(2000));
    let path = folder.path().join("file");
    std::fs::write(&path, &content).expect("written");
    let (size, tail, head) =
        edit::on(&local(&master), RemoteFile::new(open(&path))).expect("a value").expect("it works");
    assert_eq!((size, &tail[..]), (2000, &content[1995..]));
    let expected = [&content[..3], b"over there!", &content[14..1000]].concat();
    assert!(head == expected[..20], "{head:?}");
    assert!(std::fs::read(&path).expect("the file") == expected, "it is another one");
}

/// All of it, read in pieces of such a size, from a place on.
#[offshoot::remote]
fn pieces(mut file: RemoteFile, from: u64, size: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let (mut all, mut piece) = (Vec::new(), vec![0; size]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(all),
            n => all.extend_from_slice(&piece[..n]),
        }
    }
}

/// Bytes at places that jump.
#[offshoot::remote]
fn jumps(mut file: RemoteFile, places: Vec<u64>) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    for place in places {
        let mut byte = [0; 3];
        file.seek(SeekFrom::Start(place))?;
        file.read_exact(&mut byte[..1])?;
        // It goes on from there now and then.
        if place % 2 == 0 {
            file.read_exact(&mut byte[1..])?;
        }
        // And now and then for long, so that more is on its way when it jumps.
        if place % 10 == 3 {
            let mut long = vec![0; 600_000];
            for piece in long.chunks_mut(60_000) {
                if file.read(piece)? == 0 {
                    break;
                }
            }
        }
        file.read_at(&mut byte[2..], place + 7)?;
        found.extend_from_slice(&byte);
    }
    Ok(found)
}

fn read_on() {
    let master = master();
    let context = local(&master);
    let (folder, content) = (folder(), bytes(3_000_001));
    let path = folder.path().join("file");
    std::fs::write(&path, &content).expect("written");
    for (from, size) in [(0, 7777), (0, 8 << 20), (1, 65_536), (2_999_990, 100), (3_000_001, 10), (1 << 40, 10)] {
        let mut file = RemoteFile::new(open(&path));
        // The place travels, too.
        file.seek(SeekFrom::Start(12)).expect("a place");
        let read = pieces::on(&context, file, from, size).expect("a value").expect("it is read");
        let rest = content.get(from as usize..).unwrap_or_default();
        assert!(read == rest, "{} bytes from {from} on in pieces of {size}, expected {}", read.len(), rest.len());
    }
    let places: Vec<u64> = (0..200).map(|n| n * 7_919 * 13 % 2_999_990).collect();
    let expected: Vec<u8> = places
        .iter()
        .flat_map(|place| {
            let at = *place as usize;
            [content[at], if at.is_multiple_of(2) { content[at + 1] } else { 0 }, content[at + 7]]
        })
        .collect();
    let found = jumps::on(&context, RemoteFile::new(open(&path)), places).expect("a value").expect("it is read");
    assert!(found == expected, "other bytes");
}

#[offshoot::remote]
fn open_there(path: PathBuf) -> io::Result<RemoteFile> {
    File::options().read(true).write(true).open(path).map(RemoteFile::new)
}

fn opened_there() {
    let limits = WorkerLimits::default().idle(Some(Duration::from_millis(50)));
    let master = Master::builder().worker_limits(limits).build().expect("a master");
    let context = local(&master);
    let (folder, content) = (folder(), bytes(700_000));
    let path = folder.path().join("file");
    std::fs::write(&path, &content).expect("written");
    let error = open_there::on(&context, folder.path().join("none")).expect("it ran").expect_err("there is none");
    assert_eq!(error.kind, RemoteErrorKind::Os(2), "{error}");
    let worker = crate::functions::pid::on(&context).expect("a value");
    let mut file = open_there::on(&context, path.clone()).expect("a value").expect("it is there");
    // Gone by name; open it is.
    std::fs::remove_file(&path).expect("a file");
    std::thread::sleep(Duration::from_secs(2));
    let mut read = Vec::new();
    file.read_to_end(&mut read).expect("it is open");
    assert!(read == content, "{} bytes came", read.len());
    file.write_all(b"more").expect("room");
    assert_eq!(file.size().expect("a size"), 700_004);
    assert_eq!(crate::functions::pid::on(&context).expect("a value"), worker, "it ended under an open file");
    drop(file);
    within("nothing keeps it any more", || {
        crate::functions::pid::on(&context).expect("a value") != worker || {
            std::thread::sleep(Duration::from_secs(2));
            false
        }
    });
}

/// Writes its own address behind all others', each time in the next one of the contexts that are left, and gives the file back.
#[offshoot::remote]
fn sign(here: &Here, mut file: RemoteFile, mut left: Vec<Context>) -> Result<RemoteFile, offshoot::Error> {
    let written = file.seek(SeekFrom::End(0)).and_then(|_| writeln!(file, "{}", here.address()));
    written.map_err(|error| panic!("{error}")).ok();
    match left.pop() {
        None => Ok(file),
        Some(next) => sign::on(&next, file, left)?.map_err(|error| panic!("{error}")),
    }
}

fn handed_on() {
    let master = master();
    let (a, b) = (local(&master), local(&master).local().connect().expect("deeper"));
    let folder = folder();
    let path = folder.path().join("file");
    File::create(&path).expect("a file");
    let file = RemoteFile::new(open(&path));
    let mut back = sign::on(&a, file, vec![b.clone(), a.clone(), b.clone()]).expect("a value").expect("it is signed");
    let text = std::fs::read_to_string(&path).expect("text");
    let under: Vec<&str> = text.lines().map(|line| &line[..line.rfind('/').expect("a slash")]).collect();
    let [a, b] = [&a, &b].map(|context| context.address().to_string());
    assert_eq!(under, [&*a, &*b, &*a, &*b]);
    // What came back leads here, by way of all that have it.
    let mut read = String::new();
    back.rewind().expect("a place");
    back.read_to_string(&mut read).expect("it is open");
    assert_eq!(read, text);
    let own = back.clone();
    back.write_all(b"x").expect("it is open");
    assert_eq!(own.size().expect("a size"), text.len() as u64 + 1, "a clone is of another file");
    drop((own, back));
}

/// What comes of writing, cutting and reading.
#[offshoot::remote]
fn tries(mut file: RemoteFile) -> Vec<Option<i32>> {
    let errno = |result: io::Result<()>| {
        let error = result.err()?;
        let told = error.get_ref().and_then(|inner| inner.downcast_ref::<RemoteError>());
        match told.map(|error| error.kind) {
            Some(RemoteErrorKind::Os(errno)) => Some(errno),
            _ => panic!("{error}"),
        }
    };
    let read = file.read(&mut [0; 4]).map(drop);
    [read, file.write(b"x").map(drop), file.set_size(0), file.sync()].map(errno).to_vec()
}

fn as_opened() {
    let master = master();
    let context = local(&master);
    let folder = folder();
    let path = folder.path().join("file");
    std::fs::write(&path, "intact").expect("written");
    let (bad, invalid) = (Some(9), Some(22));
    let read_only = RemoteFile::new(File::open(&path).expect("a file"));
    assert_eq!(tries::on(&context, read_only).expect("a value"), [None, bad, invalid, None]);
    assert_eq!(std::fs::read_to_string(&path).expect("text"), "intact");
    let write_only = RemoteFile::new(File::options().write(true).open(&path).expect("a file"));
    assert_eq!(tries::on(&context, write_only).expect("a value"), [bad, None, None, None]);
    // A folder can be opened, and is none.
    let error = pieces::on(&context, RemoteFile::new(File::open(folder.path()).expect("a folder")), 0, 10);
    assert_eq!(error.expect("it ran").expect_err("a folder").kind, RemoteErrorKind::Os(21));
}

#[offshoot::remote]
fn fill(file: RemoteFile, bytes: Vec<u8>) -> io::Result<()> {
    let mut file = io::BufWriter::with_capacity(100_000, file);
    bytes.chunks(999).try_for_each(|piece| file.write_all(piece))?;
    file.flush()?;
    // What one call takes at most.
    assert_eq!(file.get_mut().write(&vec![1; 1 << 20])?, 256 * 1024);
    Ok(())
}

fn in_the_file() {
    let master = master();
    let context = local(&master);
    let (folder, content) = (folder(), bytes(1_500_000));
    for round in 0..5 {
        let path = folder.path().join(round.to_string());
        let file = RemoteFile::new(File::create(&path).expect("a file"));
        fill::on(&context, file, content.clone()).expect("a value").expect("room");
        // As soon as the call has ended.
        let written = std::fs::read(&path).expect("the file");
        assert!(written[..content.len()] == content, "round {round}");
        assert_eq!(written.len(), content.len() + 256 * 1024, "round {round}");
    }
}

#[offshoot::remote]
fn read_until_it_ends(mut file: RemoteFile) -> (u64, String) {
    let (mut read, mut piece) = (0, [0; 1000]);
    loop {
        if let Err(error) = file.rewind() {
            return (read, format!("{:?}: {error}", error.kind()));
        }
        match file.read(&mut piece) {
            Ok(n) => read += n as u64,
            Err(error) => return (read, format!("{:?}: {error}", error.kind())),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lost() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let folder = folder();
    let path = folder.path().join("file");
    std::fs::write(&path, bytes(100_000)).expect("written");
    let mut file = open_there::on(&a, path.clone()).expect("a value").expect("it is there");
    let used = read_until_it_ends::start(&b, file.clone());
    let mut some = [0; 10];
    file.read_exact(&mut some).expect("it is open");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!used.is_done(), "it has ended by itself");
    let began = Instant::now();
    crate::functions::abort::on(&a).expect_err("it dies");
    let (read, told) = used.wait().expect("a value");
    assert!(read > 0 && told.starts_with("BrokenPipe"), "{read} bytes were read; {told}");
    // Not an end, though there is more that was read ahead.
    let mut rest = Vec::new();
    let error = file.seek(SeekFrom::Start(50_000)).and_then(|_| file.read_to_end(&mut rest)).expect_err("it is lost");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
    file.write(b"x").expect_err("it is lost");
    file.size().expect_err("it is lost");
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
}

fn elsewhere() {
    let (sender, _receiver) = channel::<RemoteFile>(1);
    let error = sender.send(&RemoteFile::new(File::open("/etc/passwd").expect("a file"))).expect_err("no call");
    assert_eq!(error.kind(), &FailureKind::Malformed, "{error}");
    // A call that is never made; what is left is looked at when this has returned.
    drop(edit::call(RemoteFile::new(File::open("/etc/passwd").expect("a file"))));
    let master = master();
    let a = local(&master);
    a.shutdown().expect("it ends");
    edit::on(&a, RemoteFile::new(File::open("/etc/passwd").expect("a file"))).expect_err("it is gone");
}
