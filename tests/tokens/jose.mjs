// npm's `jose`, as a program: what to do is its argument, JSON on standard input, JSON on standard output.
import { createLocalJWKSet, exportJWK, importPKCS8, importSPKI, jwtVerify, SignJWT } from "jose";

const bytes = (text) => new TextEncoder().encode(text);
const publicKey = ({ alg, key, secret }) => (secret ? bytes(secret) : importSPKI(key, alg, { extractable: true }));

const commands = {
  // {alg, key | secret, kid, claims} → token
  async mint({ alg, key, secret, kid, claims }) {
    const signing = secret ? bytes(secret) : await importPKCS8(key, alg);
    return new SignJWT(claims).setProtectedHeader({ alg, kid, typ: "JWT" }).sign(signing);
  },

  // [{alg, key, kid}] → key set
  async jwks(keys) {
    const jwk = async (key) => ({ ...(await exportJWK(await publicKey(key))), alg: key.alg, kid: key.kid, use: "sig" });
    return { keys: await Promise.all(keys.map(jwk)) };
  },

  // {token, alg, key | secret, audience, issuer} → claims
  async verify({ token, audience, issuer, ...key }) {
    const { payload, protectedHeader } = await jwtVerify(token, await publicKey(key), { audience, issuer, algorithms: [key.alg] });
    return { payload, protectedHeader };
  },

  // {token, jwks, audience} → claims
  async verifyWithSet({ token, jwks, audience }) {
    return (await jwtVerify(token, createLocalJWKSet(jwks), { audience })).payload;
  },
};

let input = "";
for await (const chunk of process.stdin) input += chunk;
process.stdout.write(JSON.stringify(await commands[process.argv[2]](JSON.parse(input))));
