// Asks for one token and prints what a caller sees as one line of JSON.
//
//   node client.mjs LIBRARY CREDENTIAL RESOURCE [SELECTOR VALUE]
//
// LIBRARY is identity-4.13, identity-4.2, msal-node-7 or msal-node-5; CREDENTIAL
// is mi, default or chain, as in goclient. msal-node keeps what it found out
// about the machine in a static: one process, one scenario.
import { createHash } from "node:crypto";
import { subscribe } from "node:diagnostics_channel";

const packages = {
  "identity-4.13": "@azure/identity",
  "identity-4.2": "identity-4.2",
  "msal-node-7": "@azure/msal-node",
  "msal-node-5": "msal-node-5",
};

let requests = 0;
subscribe("http.client.request.start", () => requests++);
subscribe("undici:request:create", () => requests++);

const [library, kind, resource, selector, value] = process.argv.slice(2);
const lib = await import(packages[library]);

function claimsOf(token) {
  const parts = token.split(".");
  if (parts.length !== 3) return {};
  const { iss, aud, sub } = JSON.parse(Buffer.from(parts[1], "base64url"));
  return { iss, aud, sub };
}

const next = {
  reached: false,
  async getToken() {
    this.reached = true;
    return { token: "next", expiresOnTimestamp: Date.now() + 3600e3 };
  },
};

// azure asks through @azure/identity, retries and chain included.
async function azure() {
  const name = { client_id: "clientId", object_id: "objectId", resource_id: "resourceId" }[selector];
  const mi = () => new lib.ManagedIdentityCredential(name ? { [name]: value } : {});
  const credential =
    kind === "default" ? new lib.DefaultAzureCredential()
    : kind === "chain" ? new lib.ChainedTokenCredential(mi(), next)
    : mi();
  const t = await credential.getToken(resource + "/.default");
  return { token: t.token, expires: new Date(t.expiresOnTimestamp) };
}

// msal asks through msal-node alone.
async function msal() {
  const name = { client_id: "userAssignedClientId", object_id: "userAssignedObjectId", resource_id: "userAssignedResourceId" }[selector];
  const app = new lib.ManagedIdentityApplication(name ? { managedIdentityIdParams: { [name]: value } } : {});
  const t = await app.acquireToken({ resource });
  return { token: t.accessToken, expires: t.expiresOn };
}

const report = { ok: false, claims: {} };
try {
  const { token, expires } = await (library.startsWith("msal") ? msal() : azure());
  Object.assign(report, {
    ok: true, expires: expires.toISOString(), claims: claimsOf(token),
    digest: createHash("sha256").update(token).digest("hex"),
  });
} catch (e) {
  report.error = `${e.name}: ${e.message}`;
}
console.log(JSON.stringify({ ...report, requests, next: next.reached }));
process.exit(0); // what a library still waits for is no part of the answer
