//! Programs that nobody has changed, and how a unit starts them.

use crate::load::guest::Talk;

/// Where all of them serve.
pub(crate) const ADDRESS: &str = "127.0.0.1:8080";

/// A program as Debian has it, or as its language's own library makes it.
#[derive(Debug)]
pub(crate) struct Program {
    /// What people call it.
    pub(crate) name: &'static str,
    /// What tells its version, in a shell.
    pub(crate) version: &'static str,
    /// Its command line.
    pub(crate) command: &'static str,
    /// The address that it binds, as ListenStream= has it.
    pub(crate) address: &'static str,
    /// What `handover run` is told of it beside the usual.
    pub(crate) options: &'static str,
    /// Files that it needs: where, and what is in them.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// What it speaks.
    pub(crate) talk: Talk,
}

/// All IPv4 addresses of the host, and those of both families.
const V4: &str = "0.0.0.0:8080";
const BOTH: &str = "8080";

/// An application for a server of python's: both protocols in one file.
const APPLICATION: &str = "\
def wsgi(environ, start):
    start('200 OK', [('Content-Length', '6')])
    return [b'hello\\n']

async def asgi(scope, receive, send):
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'6')]})
        await send({'type': 'http.response.body', 'body': b'hello\\n'})
";

const NGINX_CONF: &str = "daemon off; worker_processes 2; pid /run/nginx.pid; error_log /dev/null;
events { } http { access_log off; server { listen 0.0.0.0:8080; root /srv; } }";

const NGINX_REUSEPORT: &str = "daemon off; worker_processes 2; pid /run/nginx.pid; error_log /dev/null;
events { } http { access_log off; server { listen 0.0.0.0:8080 reuseport; root /srv; } }";

/// What speaks HTTP, binds all IPv4 addresses and needs nothing.
const PLAIN: Program = Program {
    name: "",
    version: "",
    command: "",
    address: V4,
    options: "",
    files: &[("/srv/index.html", "hello\n")],
    talk: Talk::Http,
};

pub(crate) const PYTHON: Program = Program {
    name: "python http.server",
    version: "python3 -c 'import platform; print(platform.python_version())'",
    command: "/usr/bin/python3 -m http.server --protocol HTTP/1.1 8080",
    ..PLAIN
};

pub(crate) const GUNICORN: Program = Program {
    name: "gunicorn, 2 workers of 4 threads",
    version: "dpkg-query -W -f '${Version}' gunicorn",
    command: "/usr/bin/gunicorn --bind 0.0.0.0:8080 --workers 2 --threads 4 application:wsgi",
    files: &[("/srv/application.py", APPLICATION)],
    ..PLAIN
};

pub(crate) const UVICORN: Program = Program {
    name: "uvicorn",
    version: "dpkg-query -W -f '${Version}' python3-uvicorn",
    command: "/usr/bin/python3 -m uvicorn --host 0.0.0.0 --port 8080 --no-access-log application:asgi",
    files: &[("/srv/application.py", APPLICATION)],
    ..PLAIN
};

pub(crate) const NODE: Program = Program {
    name: "node http",
    version: "dpkg-query -W -f '${Version}' nodejs",
    command: "/usr/bin/node /srv/server.js",
    address: BOTH,
    files: &[(
        "/srv/server.js",
        "require('http').createServer((_, answer) => answer.end('hello\\n')).listen(8080)",
    )],
    ..PLAIN
};

pub(crate) const GO: Program = Program {
    name: "Go net/http, static",
    version: "cat /opt/programs/server.version",
    command: "/opt/programs/server 8080",
    address: BOTH,
    ..PLAIN
};

pub(crate) const NGINX: Program = Program {
    name: "nginx, 2 workers",
    version: "dpkg-query -W -f '${Version}' nginx",
    command: "/usr/sbin/nginx -c /run/nginx.conf",
    files: &[("/srv/index.html", "hello\n"), ("/run/nginx.conf", NGINX_CONF)],
    ..PLAIN
};

pub(crate) const NGINX_WITH_REUSEPORT: Program = Program {
    name: "nginx, 2 workers, `reuseport`",
    files: &[("/srv/index.html", "hello\n"), ("/run/nginx.conf", NGINX_REUSEPORT)],
    ..NGINX
};

pub(crate) const JAVA: Program = Program {
    name: "Java HttpServer",
    version: "dpkg-query -W -f '${Version}' openjdk-21-jre-headless",
    command: "/usr/bin/java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp /opt/programs Server 8080",
    address: BOTH,
    ..PLAIN
};

/// It says when it is ready, so that nobody meets it before.
pub(crate) const REDIS: Program = Program {
    name: "redis, `--strategy serial`",
    version: "dpkg-query -W -f '${Version}' redis-server",
    command: "/usr/bin/redis-server --bind 0.0.0.0 --port 8080 --protected-mode no --dir /srv --save '' \
              --supervised systemd",
    options: "--strategy serial --notify",
    talk: Talk::Redis,
    ..PLAIN
};

/// All of them, as the table has them.
pub(crate) const ALL: [Program; 9] =
    [PYTHON, GUNICORN, UVICORN, NODE, GO, NGINX, NGINX_WITH_REUSEPORT, JAVA, REDIS];
