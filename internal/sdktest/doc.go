// Package sdktest tests the SDKs as their users meet them: packed, in a directory of their own, against the real server. Its
// tests also run the TypeScript SDK's own ones (sdk/ts/test), so that `go test ./...` is all there is to run. Where there is
// no Node.js they are skipped, and say so.
package sdktest
