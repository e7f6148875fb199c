// A complete HTTP server that accepts requests with a valid key of Keyledger. Node 20, no packages.
// GUARD_TOKEN is the token of a key with the scope api-keys:verify:
//
//     GUARD_TOKEN=… PORT=3000 node guard.mjs

import { createServer } from "node:http";

const KEYLEDGER_URL = process.env.GUARD_KEYLEDGER ?? "http://127.0.0.1:8080";
const GUARD_TOKEN = process.env.GUARD_TOKEN;
const TIMEOUT_MILLISECONDS = 2000;
const LONGEST_TOKEN = 256;

if (!GUARD_TOKEN) {
  console.error("Set GUARD_TOKEN.");
  process.exit(2);
}

/** The request is refused; this is the answer. */
class Refused extends Error {
  constructor(status, detail, headers = {}) {
    super(detail);
    this.status = status;
    this.headers = headers;
  }
}

function challenge(parameters = {}) {
  const written = Object.entries(parameters).map(([name, value]) => `${name}="${value}"`);
  return { "WWW-Authenticate": ['Bearer realm="api"', ...written].join(", ") };
}

function badToken(why) {
  return new Refused(401, why, challenge({ error: "invalid_token", error_description: why }));
}

// Whatever is not a clear yes or no is 503. The log has the reason, and never a token.
function unavailable(why) {
  console.error(`Keyledger cannot be asked: ${why}`);
  return new Refused(503, "keys cannot be verified at this moment", { "Retry-After": "1" });
}

function presentedToken(request) {
  const tokens = new Set(request.headersDistinct["x-api-key"]);
  for (const value of request.headersDistinct.authorization ?? []) {
    const bearer = /^bearer +(.*)$/i.exec(value);
    if (!bearer) throw new Refused(401, "write Authorization: Bearer TOKEN", challenge());
    tokens.add(bearer[1].trim());
  }
  if (tokens.size === 0) throw new Refused(401, "present a token", challenge());
  if (tokens.size > 1) throw badToken("two different tokens were presented");
  const [token] = tokens;
  if (token.length > LONGEST_TOKEN) throw badToken("the key is not known here");
  return token;
}

/** Return Keyledger's verdict about a request whose key has the scopes; throw Refused otherwise. */
async function keyOf(request, scopes) {
  const token = presentedToken(request);
  let answer, verdict;
  try {
    answer = await fetch(`${KEYLEDGER_URL}/v1/verify`, {
      method: "POST",
      headers: { Authorization: `Bearer ${GUARD_TOKEN}`, "Content-Type": "application/json" },
      body: JSON.stringify({ token, scopes }),
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
    });
    verdict = await answer.json();
  } catch (error) {
    throw unavailable(error.name);
  }
  if (answer.status !== 200) throw unavailable(`it answered ${answer.status}`);
  if (verdict?.valid === true && verdict.code === "VALID") return verdict;
  switch (verdict?.code) {
    case "INSUFFICIENT_SCOPE": {
      const scope = scopes.join(" ");
      const headers = challenge({ error: "insufficient_scope", scope });
      throw new Refused(403, `this needs a key with the scope ${scope}`, headers);
    }
    case "REVOKED":
      throw badToken("the key was revoked");
    case "EXPIRED":
      throw badToken("the key has expired");
    case "NOT_FOUND":
    case "MALFORMED":
      throw badToken("the key is not known here");
    default:
      throw unavailable("it answered no verdict");
  }
}

function send(response, status, body, headers = {}) {
  response.writeHead(status, {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    ...headers,
  });
  response.end(JSON.stringify(body));
}

const server = createServer(async (request, response) => {
  try {
    if (request.method !== "GET" || request.url.split("?")[0] !== "/tools") {
      throw new Refused(404, "not found");
    }
    const key = await keyOf(request, ["mcp:read"]);
    send(response, 200, { key_id: key.key_id, workspace: key.workspace });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    send(response, error.status, { detail: error.message }, error.headers);
  }
});

server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
