package delivery

// Features is how much of what a destination can ask for is honoured by this version: a node writes it down beside its heartbeat,
// and a request that asks for more than all live nodes honour is refused (decision 140). It goes up by one with each setting that
// is not to be left out, such as a credential: an earlier version that does not know it would deliver without.
//
//	1  client_tls, client_credentials, sealed values of headers, listening sessions
const Features = 1
