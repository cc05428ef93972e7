// An authorization server by panva's oidc-provider, for one test run.
// It reads one JSON document from stdin:
//   { key, cert, deviceCA: PEM; clients: [...]; resources: [...]; ttl: seconds; life: seconds }
// prints "READY https://localhost:PORT" on stdout, and ends after life seconds
// or when stdin closes.
import { X509Certificate } from 'node:crypto';
import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const modules = createRequire(process.env.MODULES + '/');
const { default: Provider } = await import(pathToFileURL(modules.resolve('oidc-provider')));

const input = await new Promise((resolve) => {
  let text = '';
  process.stdin.setEncoding('utf8');
  process.stdin.on('data', (chunk) => {
    text += chunk;
    if (text.endsWith('\n')) resolve(JSON.parse(text));
  });
});
process.stdin.on('end', () => process.exit(0));
setTimeout(() => process.exit(0), input.life * 1000);

const certificateOf = (ctx) => {
  const peer = ctx.socket.getPeerCertificate();
  return peer?.raw ? new X509Certificate(peer.raw) : undefined;
};

const unknownResource = (name) => {
  const error = new Error('invalid_target');
  return Object.assign(error, { error: 'invalid_target', error_description: `no resource ${name}`, status: 400, statusCode: 400, expose: true });
};

const options = {
  clients: input.clients,
  responseTypes: [],
  scopes: ['api'],
  clientAuthMethods: ['private_key_jwt', 'tls_client_auth'],
  enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'PS256', 'ES256'] },
  ttl: { ClientCredentials: () => input.ttl },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      certificateBoundAccessTokens: true,
      getCertificate: certificateOf,
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, wanted) =>
        property === 'tls_client_auth_san_uri' &&
        (certificateOf(ctx)?.subjectAltName ?? '').split(', ').includes('URI:' + wanted),
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => false,
      getResourceServerInfo: (ctx, name) => {
        if (!input.resources.includes(name)) throw unknownResource(name);
        return { scope: 'api', audience: name, accessTokenTTL: input.ttl, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } };
      },
    },
  },
};

const server = createServer({
  key: input.key, cert: input.cert, ca: input.deviceCA, requestCert: true, rejectUnauthorized: false,
});
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://localhost:${server.address().port}`;
  const provider = new Provider(issuer, options);
  provider.on('grant.error', (ctx, error) => console.error('refused:', error.error, error.error_description, error.error_detail ?? ''));
  provider.on('server_error', (ctx, error) => console.error('failed:', error));
  server.on('request', provider.callback());
  console.log('READY ' + issuer);
});
