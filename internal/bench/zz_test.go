package bench
import ("testing";"net";"sync";"sync/atomic";"github.com/valyala/fasthttp")
func BenchmarkFast(b *testing.B){
 ln,_:=net.Listen("tcp","127.0.0.1:0")
 l:=newLedger(); l.next.Store(uint64(b.N))
 s:=&fasthttp.Server{Handler:func(c *fasthttp.RequestCtx){ _,id,_:=readMark(c.PostBody()); l.received(id); c.SetStatusCode(202)}}
 go s.Serve(ln); defer s.Shutdown()
 t,_:=parseTarget("http://"+ln.Addr().String()+"/x")
 p:=newPayload(l.run,1024)
 var n atomic.Int64
 var wg sync.WaitGroup
 hc:=&fasthttp.HostClient{Addr:ln.Addr().String(),MaxConns:64}
 b.ResetTimer(); c0:=cpuTime(b)
 for range 64 { wg.Go(func(){
  w:=newWebhook(t,"s",l.run,p)
  req:=fasthttp.AcquireRequest();resp:=fasthttp.AcquireResponse()
  req.SetRequestURI("http://"+ln.Addr().String()+"/x");req.Header.SetMethod("POST");req.Header.SetContentType("application/json")
  req.Header.Set("X-GitHub-Event","push")
  for { i:=n.Add(1)-1; if i>=int64(b.N){return}
   w.stamp(uint64(i)); l.sent(uint64(i),l.now())
   req.Header.SetBytesV("X-GitHub-Delivery",w.delivery);req.Header.SetBytesV("X-Hub-Signature-256",w.signature);req.SetBodyRaw(w.body)
   if err:=hc.Do(req,resp);err!=nil{b.Error(err);return}
   l.acked(uint64(i),l.now())
  }})}
 wg.Wait()
 b.ReportMetric(float64((cpuTime(b)-c0).Microseconds())/float64(b.N),"cpu-µs/op")
}
