//! The page at `/`: one file, nothing loaded from elsewhere.

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">

<head>
    <meta charset="UTF-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Kedge demo</title>
    <style>
        :root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0b7285; }
        body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; }
        h1 { margin: 0; font-size: 2rem; }
        p.pod { color: var(--accent); font-family: ui-monospace, monospace; margin: .25rem 0 2rem; }
        table { border-collapse: collapse; width: 100%; }
        td { border-top: 1px solid var(--line); padding: .5rem .75rem; vertical-align: top; }
        td:first-child { white-space: nowrap; font-family: ui-monospace, monospace; }
        tr:hover { background: var(--soft); }
        a { color: var(--accent); text-decoration: none; }
        a:hover { text-decoration: underline; }
        footer { margin-top: 2rem; opacity: .7; font-size: .875rem; }
    </style>
</head>

<body>
    <h1>Kedge demo</h1>
    <p class="pod">answered by {hostname}</p>
    <table>
        <tr><td><a href="/get">/get</a></td><td>The request: arguments, headers, origin, URL</td></tr>
        <tr><td>/post, /put, /patch, /delete</td><td>The same with form, data and JSON, for their methods</td></tr>
        <tr><td><a href="/anything/you/like">/anything</a></td><td>The same for every method and path</td></tr>
        <tr><td><a href="/headers">/headers</a></td><td>The request's headers</td></tr>
        <tr><td><a href="/ip">/ip</a></td><td>The client's address</td></tr>
        <tr><td><a href="/user-agent">/user-agent</a></td><td>The client's name for itself</td></tr>
        <tr><td><a href="/status/418">/status/{code}</a></td><td>An answer with that status, 200 to 599</td></tr>
        <tr><td><a href="/delay/2">/delay/{seconds}</a></td><td>An answer after a while, at most 10 seconds</td></tr>
        <tr><td><a href="/hostname">/hostname</a></td><td>The pod that answered: reload to meet the others</td></tr>
        <tr><td><a href="/healthz">/healthz</a></td><td>For probes</td></tr>
    </table>
    <footer>A small web application inside the kedge binary, in the manner of httpbin.</footer>
</body>

</html>
"#;

/// The page, as this machine shows it.
pub(crate) fn html(hostname: &str) -> String {
    let escaped = hostname.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    PAGE.replace("{hostname}", &escaped)
}
