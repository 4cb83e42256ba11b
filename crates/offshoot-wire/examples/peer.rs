//! A peer in thirty lines, by this crate alone: a parent and a child on two ends of a socket, the hello both ways, one
//! request and its answer. What real contexts add is routing, streams and time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use offshoot_wire::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (parent, child) = UnixStream::pair()?;
    let serving = thread::spawn(move || serve(child).map_err(|error| error.to_string()));
    ask(parent)?;
    serving.join().expect("the child does not panic")?;
    Ok(())
}

fn ask(mut link: UnixStream) -> Result<(), Box<dyn std::error::Error>> {
    let address = Address::ROOT.child(0)?;
    let hello = ParentHello {
        nonce: [7; 16],
        tree: [1; 16],
        address: address.clone(),
        key: [2; 32],
        tree_ms: 0,
        frame: Limits::FRAME,
        heartbeat_ms: 5000,
        silence_ms: 15_000,
        name: "socket".into(),
        path: "socket".into(),
        process_name: "peer".into(),
        log: 0,
    };
    // The first request need not wait for the child's hello.
    let mut out = Vec::new();
    hello.put(&mut out);
    let mut body = encode(&RequestHead { verb: Verb::Echo.number(), window: 0, grant: None });
    body.extend(b"is there anybody?");
    let mut request = Frame::routed(FrameKind::Request, address, Address::ROOT, 1).with_body(body.into());
    request.header.full = true;
    request.encode(&mut out);
    link.write_all(&out)?;

    let mut buffer = Vec::new();
    let theirs =
        read(&mut link, &mut buffer, |bytes| Ok(parse_hello::<ChildHello>(bytes)?.map(|hello| (hello.length, hello))))?;
    assert_eq!(theirs.hello.nonce, hello.nonce, "the hello answers another connect");
    println!("{} speaks version {}", escape::escaped(theirs.hello.host.as_bytes()), theirs.version);
    let (header, body) = read_frame(&mut link, &mut buffer)?;
    println!("{:?} of exchange {}: {}", header.kind, header.exchange, escape::quoted(&body));
    Ok(())
}

fn serve(mut link: UnixStream) -> Result<(), Box<dyn std::error::Error>> {
    let mut buffer = Vec::new();
    let theirs =
        read(
            &mut link,
            &mut buffer,
            |bytes| Ok(parse_hello::<ParentHello>(bytes)?.map(|hello| (hello.length, hello))),
        )?;
    let mut out = Vec::new();
    ChildHello {
        nonce: theirs.hello.nonce,
        frame: Limits::FRAME,
        triple: "any".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        host: "the other end".into(),
        user: "nobody".into(),
        uid: 65_534,
        pid: std::process::id(),
    }
    .put(&mut out);
    link.write_all(&out)?;
    let (header, body) = read_frame(&mut link, &mut buffer)?;
    let (head, words) = RequestHead::split(&body)?;
    let answer = match head.verb() {
        Some(Verb::Echo) => {
            Frame::routed(FrameKind::Reply, header.src, header.dst, header.exchange).with_body(words.to_vec().into())
        }
        _ => {
            let failure = Failure::new(FailureKind::Unsupported, "only echo here").at(header.dst.clone());
            Frame::routed(FrameKind::Failure, header.src, header.dst, header.exchange)
                .with_body(encode(&failure).into())
        }
    };
    let mut out = Vec::new();
    answer.encode(&mut out);
    link.write_all(&out)?;
    Ok(())
}

fn read_frame(
    link: &mut UnixStream,
    buffer: &mut Vec<u8>,
) -> Result<(FrameHeader, Vec<u8>), Box<dyn std::error::Error>> {
    read(link, buffer, |bytes| {
        let frame = parse_frame(bytes, &Limits::default())?;
        Ok(frame.map(|frame| (frame.length, (frame.header, bytes[frame.body].to_vec()))))
    })
}

/// Reads until `parse` finds something whole at the front, and takes it off.
fn read<T>(
    link: &mut UnixStream,
    buffer: &mut Vec<u8>,
    parse: impl Fn(&[u8]) -> Result<Option<(usize, T)>, Box<dyn std::error::Error>>,
) -> Result<T, Box<dyn std::error::Error>> {
    let mut piece = [0; 4096];
    loop {
        if let Some((length, found)) = parse(buffer)? {
            buffer.drain(..length);
            return Ok(found);
        }
        match link.read(&mut piece)? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            length => buffer.extend_from_slice(&piece[..length]),
        }
    }
}
